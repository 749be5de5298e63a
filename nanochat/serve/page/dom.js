// Elements and icons, built as nodes: text given to them is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v11H9zM6 15H5V4h10v2",
  check: "M5 12.5 10 17.5 19.5 7",
  edit: "M4 20l1-4.5L16 4.5l3.5 3.5L8.5 19z",
  again: "M19.5 12a7.5 7.5 0 1 1-2.4-5.5M17.5 2.8v4h-4",
  left: "M14.5 6 8.5 12l6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M12 5v14M5.5 12.5 12 19l6.5-6.5",
  save: "M12 4v11M7 10.5 12 15l5-4.5M5 20h14",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6 6 18",
  settings: "M4 7h9M17 7h3M15 5v4M4 17h3M11 17h9M9 15v4M4 12h1M9 12h11M7 10v4",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
};

/** Return a new element; properties are set as properties, or as attributes where the name has a dash. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Return an icon, which readers of the screen skip. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

/** Return a button that shows an icon and has a name. */
export function iconButton(name, picture, onclick, properties = {}) {
  return element(
    "button",
    { type: "button", class: "icon-button", "aria-label": name, title: name, onclick, ...properties },
    icon(picture),
  );
}

/** Copy text and show on the button that it worked. */
export async function copyFrom(button, text) {
  const done = await copy(text);
  const before = button.firstChild;
  if (button.dataset.shows) return;
  button.dataset.shows = "yes";
  button.replaceChild(icon(done ? "check" : "close"), before);
  setTimeout(() => {
    button.replaceChild(before, button.firstChild);
    delete button.dataset.shows;
  }, 1600);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyFromField(text); // no clipboard on an address without TLS that is not this machine's
  }
}

function copyFromField(text) {
  const focused = document.activeElement;
  const field = element("textarea", { value: text, class: "unseen" });
  (focused?.closest("dialog") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}

/** Return a random name, also where the page may not ask for a UUID. */
export function randomName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (n) => n.toString(16).padStart(2, "0")).join("");
}
