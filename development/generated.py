"""The files that are generated from the code; a test checks that they are up to date."""

import json
from functools import cache
from pathlib import Path

from app import create_app
from config import PROJECT, SETTINGS, Settings

README = PROJECT / "README.md"
TABLE_BEGIN = "<!-- settings: made by `make docs` -->\n"
TABLE_END = "<!-- end of settings -->"


def files() -> dict[Path, str]:
    """Return every generated file with its text."""
    readme = README.read_text(encoding="utf-8")
    before, _, rest = readme.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return {
        PROJECT / "openapi.json": openapi(),
        PROJECT / ".env.example": env_example(),
        README: before + TABLE_BEGIN + settings_table() + TABLE_END + after,
    }


@cache
def openapi() -> str:
    settings = Settings(database_url="postgresql://", better_auth_secret="x" * 32)
    spec = create_app(settings).extensions["description"].to_dict()
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def literal_default(name: str) -> str:
    """Write a setting's default as one would set it; '' where it has none or derives it."""
    match SETTINGS[name].default:
        case bool(default):
            return "on" if default else "off"
        case tuple(default):
            return ",".join(default)
        case _ if SETTINGS[name].metadata["derived"]:
            return ""
        case default:
            return str(default)


def settings_table() -> str:
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, setting in SETTINGS.items():
        literal = literal_default(name)
        default = f"`{literal}`" if literal else setting.metadata["derived"]
        rows.append(f"| `{name.upper()}` | {default} | {setting.metadata['text']} |")
    return "\n".join(rows) + "\n"


def env_example() -> str:
    lines = ["# Copy to .env and uncomment what you set. What the environment sets wins."]
    for name, setting in SETTINGS.items():
        text, derived = setting.metadata["text"], setting.metadata["derived"]
        note = f"{text}. Default: {derived}." if derived else f"{text}."
        lines += ["", f"# {note}".replace("`", ""), f"#{name.upper()}={literal_default(name)}"]
    return "\n".join(lines) + "\n"
