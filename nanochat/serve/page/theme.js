// Dark or light: what the system has until the reader chooses. Runs before the first paint; keeps the choice.

const KEY = "nanochat.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function kept() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off: the system decides
  }
}

function apply(theme) {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

/** Return "dark" or "light": what is shown. */
export function shownTheme() {
  return document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
}

/** Show the other theme; one that the system also has is not kept, so that the page follows the system again. */
export function switchTheme() {
  const wanted = shownTheme() === "dark" ? "light" : "dark";
  const theme = wanted === (dark.matches ? "dark" : "light") ? null : wanted;
  apply(theme);
  try {
    if (theme) localStorage.setItem(KEY, theme);
    else localStorage.removeItem(KEY);
  } catch {
    // It holds until the page closes.
  }
}

apply(kept());
addEventListener("storage", (event) => {
  if (event.key === KEY) apply(event.newValue);
});
