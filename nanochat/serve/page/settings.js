// What can be set about answers: defaults, limits, and what of it goes into a request. Kept in the browser.
// Not here: the dialog (`settings_dialog.js`).

/** Where they are kept. */
export const SETTINGS_KEY = "nanochat.settings";

/** The settings in the order in which they are shown; `empty` says what leaving one empty means. */
export const FIELDS = [
  {
    name: "temperature", label: "Temperature", least: 0, most: 2, step: 0.05, standard: 0.6,
    about: "0 takes the likeliest word each time; more is bolder.",
  },
  {
    name: "topP", label: "Top-p", least: 0.01, most: 1, step: 0.01, standard: 1,
    about: "Draw among the fewest words that together have this probability.",
  },
  {
    name: "topK", label: "Top-k", least: 1, most: 200, step: 1, standard: 50, whole: true, empty: "all",
    about: "Draw among this many of the likeliest words.",
  },
  {
    name: "maxTokens", label: "Longest answer", least: 1, most: 4096, step: 1, standard: 512, whole: true,
    empty: "as the server has it", about: "In tokens, which are words or pieces of words.",
  },
  {
    name: "seed", label: "Seed", least: 0, most: 2 ** 31 - 1, step: 1, standard: null, whole: true, empty: "random",
    about: "With a number, the same question gets the same answer.",
  },
]; // prettier-ignore

/** Return the settings as they are before anybody changes them. */
export function standardSettings() {
  return { system: "", ...Object.fromEntries(FIELDS.map(({ name, standard }) => [name, standard])) };
}

/** Return the kept settings; what is damaged or out of its limits is as standard. */
export function loadSettings() {
  const settings = standardSettings();
  try {
    const kept = JSON.parse(localStorage.getItem(SETTINGS_KEY) ?? "{}");
    for (const field of FIELDS) if (field.name in kept && !wrongIn(field, kept[field.name])) settings[field.name] = kept[field.name];
    if (typeof kept.system === "string") settings.system = kept.system;
  } catch {
    // as standard
  }
  return settings;
}

/** Keep the settings. */
export function saveSettings(settings) {
  try {
    localStorage.setItem(SETTINGS_KEY, JSON.stringify(settings));
  } catch {
    // They hold until the page closes.
  }
}

/** Return what is wrong with a value, in words, or an empty string. */
export function wrongIn(field, value) {
  if (value === null) return field.empty ? "" : `A number from ${field.least} to ${field.most} is needed.`;
  const fits = Number.isFinite(value) && value >= field.least && value <= field.most;
  if (!fits) return `It must be from ${field.least} to ${field.most}.`;
  return field.whole && !Number.isInteger(value) ? "It must be a whole number." : "";
}

/** Return the fields of a request; an unset seed is drawn, so that another answer can differ. */
export function asRequest(settings) {
  const seed = settings.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  return {
    temperature: settings.temperature,
    top_p: settings.topP,
    top_k: settings.topK ?? 0,
    ...(settings.maxTokens === null ? {} : { max_tokens: settings.maxTokens }),
    seed,
  };
}
