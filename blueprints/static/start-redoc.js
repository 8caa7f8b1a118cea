const createElement = document.createElement;

// ReDoc's only image is a logo from another machine, and no option of it leaves that out.
document.createElement = function (name, ...options) {
  return createElement.call(this, name === "img" ? "span" : name, ...options);
};

Redoc.init("openapi.json", {}, document.getElementById("redoc"));
