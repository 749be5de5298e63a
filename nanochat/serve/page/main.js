// Puts the page together: makes the views, connects them to the chat, and the keys to both.

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { KeyDialog, SettingsDialog } from "./dialogs.js";
import { element, icon, iconButton } from "./dom.js";
import { EmptyState } from "./empty_state.js";
import { LogView } from "./log_view.js";
import { Alert, figures, note } from "./notices.js";
import { SETTINGS_KEY, loadSettings, saveSettings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { ConversationStore } from "./store.js";
import { shownTheme, switchTheme } from "./theme.js";

const OPEN = "nanochat.open"; // the conversation that this tab shows

const at = (id) => document.getElementById(id);
const main = document.querySelector("main");
const say = (text, actions, keep) => note(at("notes"), text, actions, keep);

const STORE_NOTES = {
  full: ["The browser's storage is full: what is new is lost when this tab closes. Delete or export old conversations.", []],
  off: ["This browser keeps nothing for this page: conversations are lost when the tab closes.", []],
  damaged: ["Some kept conversations are damaged and left out.", [["Remove them", () => store.removeDamaged()]]],
};
const reported = new Set();

const store = new ConversationStore(
  (problem) => {
    if (!reported.has(problem)) queueMicrotask(() => say(...STORE_NOTES[problem], true));
    reported.add(problem);
  },
  (id) => chat.changedElsewhere(id),
);
const settings = loadSettings();
const connection = new Connection((state) => {
  show();
  if (state === "ready" && !chat.model.id) chat.meet();
});
const keyDialog = new KeyDialog();
const settingsDialog = new SettingsDialog(settings, () => saveSettings(settings));
const alert = new Alert(at("alert"), toField);
const chat = new Chat({
  store, settings, connection, askKey: () => keyDialog.ask(), changed, note: say,
  grown: (message) => {
    log.grow(message);
    at("live").textContent = figures(message, null);
  },
  said: (text) => text && log.speak(text),
}); // prettier-ignore
const log = new LogView(
  { log: at("log"), scroll: at("scroll"), toEnd: at("to-end"), spoken: at("spoken") },
  { edit, regenerate, version },
);
const composer = new Composer(at("composer"), {
  send: (text) => chat.send(text),
  stop: () => chat.stop(),
  editEnded: () => chat.edit(null),
  editLast,
});
const empty = new EmptyState(at("empty"), (text) => {
  chat.send(text);
  toField();
});
const title = element("h1", { dir: "auto" });
const modelName = element("span", { class: "model-name" });
const themeButton = element("button", { type: "button", class: "foot-button", onclick: onTheme }, icon("theme"), "Theme");
const settingsButton = element("button", { type: "button", class: "foot-button", onclick: () => settingsDialog.open() }, icon("settings"), "Settings");
const sidebar = new Sidebar(
  { nav: at("conversations"), shade: at("shade"), main },
  {
    create: () => open(null),
    open,
    rename: (id, text) => chat.rename(id, text),
    download: (id, kind) => chat.download(id, kind),
    remove: (id, place) => {
      chat.remove(id);
      sidebar.focusAfterDelete(place);
    },
  },
  element("div", { class: "foot" }, settingsButton, themeButton),
);

function open(id) {
  sidebar.close();
  chat.open(id);
  composer.field.focus();
}

function edit(message) {
  chat.edit(message);
  composer.edit(message.text);
}

function regenerate(message) {
  chat.regenerate(message);
  toField();
}

// Another version is another article: the focus goes to the same button there.
function version(message, step) {
  const shown = log.elementOf(chat.version(message, step));
  const names = step > 0 ? ["Next version", "Previous version"] : ["Previous version", "Next version"];
  const buttons = names.map((name) => shown.querySelector(`[aria-label="${name}"]`));
  buttons.find((button) => !button.disabled)?.focus();
}

// Where a finger points, a focused field would bring up the keyboard.
function toField() {
  if (matchMedia("(pointer: fine)").matches && !document.querySelector("dialog[open]")) composer.field.focus();
}

function editLast() {
  const last = chat.path().findLast(({ message }) => message.role === "user");
  if (!last || chat.runningMessage()) return false;
  edit(last.message);
  return true;
}

function onTheme() {
  switchTheme();
  themeButton.title = `Now ${shownTheme()}`;
}

function changed({ opened, asked } = {}) {
  if (opened) composer.endEdit(); // what was edited is no longer there
  show();
  if (opened || asked) log.toEnd();
}

function show() {
  const path = chat.path();
  const running = chat.runningMessage();
  at("empty").hidden = path.length > 0;
  at("log").hidden = !path.length;
  empty.show(chat.model.id);
  log.show(path, running);
  sidebar.show(store.list(), chat.current?.id, chat.runningIds());
  composer.running(Boolean(running));
  alert.show(chat.problem());
  title.textContent = chat.current?.title || "New conversation";
  modelName.textContent = chat.model.id;
  document.title = chat.current?.title ? `${chat.current.title} – nanochat` : "nanochat";
  at("live").textContent = "";
  at("status").textContent = running ? "Writing…" : figures(path.at(-1)?.message, chat.model.longest);
  keepOpen(chat.current?.id ?? null);
}

function keepOpen(id) {
  try {
    if (id) sessionStorage.setItem(OPEN, id);
    else sessionStorage.removeItem(OPEN);
  } catch {
    // After a reload the list is there.
  }
}

function keptOpen() {
  try {
    return sessionStorage.getItem(OPEN);
  } catch {
    return null;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) chat.stop();
  const letter = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && event.shiftKey && (letter === "o" || letter === "n")) {
    event.preventDefault(); // Chrome keeps Ctrl+Shift+N for itself
    open(null);
  }
});
addEventListener("pagehide", () => chat.saveAll());
addEventListener("storage", (event) => {
  if (event.key === SETTINGS_KEY) Object.assign(settings, loadSettings());
});

at("top").append(sidebar.menu, title, modelName);
document.body.append(settingsDialog.dom, keyDialog.dom);
chat.open(keptOpen());
toField();
chat.meet();
connection.check();
