// Making and renewing the elements of a page, and putting values into words.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "circle", "text", "title", "rect"]);

/** An element; attributes that are `null` or `false` are left out, functions are listeners. */
export function h(tag, attributes, ...children) {
  const node = SVG_TAGS.has(tag)
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
}

/** Makes `node` have these children, and keeps what is the same: focus, selection, open details. */
export function renew(node, ...children) {
  const wanted = document.createElement(node.tagName);
  append(wanted, children);
  sameChildren(node, wanted);
}

function sameChildren(node, wanted) {
  const [old, fresh] = [[...node.childNodes], [...wanted.childNodes]];
  fresh.forEach((child, at) => {
    const before = old[at];
    if (!before) node.append(child);
    else if (!isAlike(before, child)) before.replaceWith(child);
    else if (before.nodeType === Node.TEXT_NODE) {
      if (before.data !== child.data) before.data = child.data;
    } else {
      sameAttributes(before, child);
      sameChildren(before, child);
    }
  });
  old.slice(fresh.length).forEach((child) => child.remove());
}

function isAlike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName
    && a.getAttribute?.("data-key") === b.getAttribute?.("data-key");
}

function sameAttributes(node, wanted) {
  const own = (name) => name === "open" && node.nodeName === "DETAILS";
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !own(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value && !own(name)) node.setAttribute(name, value);
  }
}

/** A table that is a list of cards where it is narrow; its roles say what it is even then. */
export function table(caption, columns, rows) {
  const head = columns.map(({ name, is }) =>
    h("th", { scope: "col", role: "columnheader", class: is }, name));
  const body = rows.map((row) => h("tr", { role: "row", "data-key": row.key },
    columns.map(({ name, is, of }, at) => h(at === 0 ? "th" : "td", {
      role: at === 0 ? "rowheader" : "cell", scope: at === 0 ? "row" : null,
      class: is, "data-label": name,
    }, of(row)))));
  return h("table", { role: "table" },
    h("caption", {}, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    h("tbody", { role: "rowgroup" }, body));
}

/** Figures with their names. */
export function figures(...pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  return h("dl", { class: "figures" }, shown.map(([name, value, is]) =>
    h("div", { class: is }, h("dt", {}, name), h("dd", {}, value))));
}

const LEVELS = { bad: "Bad", warn: "Warning" };

/** What needs attention, with what to do. */
export function notices(list) {
  if (!list?.length) return null;
  return h("ul", { class: "notices" }, list.map(({ level, text, advice }) =>
    h("li", { class: level }, h("strong", {}, `${LEVELS[level]}: `), text, ". ",
      h("span", { class: "advice" }, advice, "."))));
}

/** Something that is not there, and what to do. */
export function empty(text, ...advice) {
  return h("p", { class: "empty" }, text, " ", advice);
}

const NONE = "\u2013";

export function number(value, digits = 0) {
  if (value === null || value === undefined) return NONE;
  return value.toLocaleString(undefined,
    { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return `${number(value, value > 0 && value < 10 ? 1 : 0)}/s`;
}

export function share(value) {
  if (value === null || value === undefined) return NONE;
  const percent = value * 100;
  // All but one in a million is not all.
  const digits = percent === 100 || percent === 0 ? 0 : percent > 99 || percent < 1 ? 2 : 1;
  const shown = Math.min(percent, percent < 100 ? 99.99 : 100);
  return `${number(shown, digits)} %`;
}

export function ms(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 10000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value < 10 ? 2 : 1)} ms`;
}

/** A time in the viewer's zone. */
export function time(at, withDate = false) {
  const date = new Date(at);
  const day = date.toDateString() !== new Date().toDateString() || withDate;
  const options = day ? { dateStyle: "medium", timeStyle: "medium" } : { timeStyle: "medium" };
  return h("time", { datetime: date.toISOString() }, date.toLocaleString(undefined, options));
}

/** How long, roughly. */
export function duration(millis) {
  const units = [[86400000, "d"], [3600000, "h"], [60000, "min"], [1000, "s"]];
  const at = units.findIndex(([size]) => millis >= size);
  if (at < 0) return "0 s";
  const [size, unit] = units[at];
  const rest = units[at + 1];
  const more = rest ? Math.floor((millis % size) / rest[0]) : 0;
  return `${Math.floor(millis / size)} ${unit}${more ? ` ${more} ${rest[1]}` : ""}`;
}

export const appLink = (name) => h("a", { href: `#/app/${encodeURIComponent(name)}` }, name);

export function modelLink(name, version) {
  const path = `#/model/${encodeURIComponent(name)}/${encodeURIComponent(version)}`;
  return h("a", { href: path }, `${name}:${version}`);
}
