"""The files that are made from the code, not written: a test holds them equal."""

import json
import re
from pathlib import Path

from app import create_app
from config import PROJECT, SETTINGS, Settings

README = PROJECT / "README.md"
TABLE_BEGIN = "<!-- settings: made by `make docs` -->\n"
TABLE_END = "<!-- end of settings -->"


def files() -> dict[Path, str]:
    """Return every generated file with its text."""
    readme = README.read_text()
    before, _, rest = readme.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return {
        PROJECT / "openapi.json": openapi(),
        PROJECT / ".env.example": env_example(),
        README: before + TABLE_BEGIN + settings_table() + TABLE_END + after,
    }


def openapi() -> str:
    settings = Settings(database_url="postgresql://", better_auth_secret="x" * 32)
    app = create_app(settings)
    spec = app.extensions["flask-smorest"]["apis"][""]["ext_obj"].spec.to_dict()
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def shown_default(name: str) -> str:
    setting = SETTINGS[name]
    if setting.metadata["shown"]:
        return str(setting.metadata["shown"])
    return "" if setting.default == "" else str(setting.default)


def settings_table() -> str:
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, setting in SETTINGS.items():
        default = shown_default(name)
        plain = default and "`" not in default and setting.metadata["shown"] != "number of cores"
        shown = f"`{default}`" if plain else default
        rows.append(f"| `{name.upper()}` | {shown} | {setting.metadata['text']} |")
    return "\n".join(rows) + "\n"


def env_example() -> str:
    lines = ["# Copy to .env and uncomment what you set. The process's own environment wins."]
    for name, setting in SETTINGS.items():
        default = re.sub("`", "", shown_default(name))
        text = re.sub("`", "", setting.metadata["text"])
        lines += ["", f"# {text}.", f"#{name.upper()}={default if setting.default == default else ''}"]
    return "\n".join(lines) + "\n"
