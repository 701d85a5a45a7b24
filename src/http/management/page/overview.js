// The first page: what needs attention, then applications and models.

import { post } from "./api.js";
import {
  appLink, duration, empty, figures, h, modelLink, ms, number, rate, renew, share, table,
} from "./dom.js";

const reasons = (defaults) => Object.entries(defaults)
  .sort(([, a], [, b]) => b - a)
  .map(([reason, count]) => `${reason.replaceAll("_", " ")} ${number(count)}`).join(", ");

const APPS = [
  { name: "Application", of: (row) => appLink(row.name) },
  { name: "In SLO", is: "number", of: (row) => share(row.attainment) },
  { name: "Rate", is: "number", of: (row) => rate(row.per_second) },
  { name: "p99", is: "number", of: (row) => ms(row.p99_ms) },
  { name: "SLO", is: "number", of: (row) => ms(row.objective_ms) },
  { name: "Defaults", of: (row) => reasons(row.defaults) || "none" },
  { name: "Models", of: (row) => row.models.join(", ") || "none" },
  { name: "State", of: (row) => state(row) },
];

const MODELS = [
  { name: "Model", of: (row) => modelLink(row.model, row.version) },
  { name: "Version", of: (row) => (row.current ? "current" : "not current") },
  { name: "Replicas", is: "number", of: (row) => number(row.replicas) },
  { name: "Waiting", is: "number", of: (row) => number(row.queue) },
  { name: "Rate", is: "number", of: (row) => rate(row.per_second) },
  { name: "Batch", is: "number", of: (row) => number(row.batch_mean, 1) },
  { name: "Cache", is: "number", of: (row) => share(row.cache_hit_share) },
  { name: "State", of: (row) => state(row) },
];

const keyed = (rows, key) => rows.map((row) => ({ ...row, key: key(row) }));

function state(row) {
  const worst = row.notices?.[0]?.level;
  const word = { bad: "Bad", warn: "Look" }[worst] ?? "Good";
  const rollout = row.rollout ? `, rollout ${row.rollout.percent} %` : "";
  return h("span", { class: `badge ${worst ?? "good"}` }, word + rollout);
}

function attention({ app_rows: apps, model_rows: models }) {
  const of = (rows, link) => rows.flatMap((row) =>
    (row.notices ?? []).map((notice) => ({ ...notice, link: link(row) })));
  const all = [
    ...of(apps, (row) => appLink(row.name)),
    ...of(models, (row) => modelLink(row.model, row.version)),
  ].sort((a, b) => (a.level === "bad" ? 0 : 1) - (b.level === "bad" ? 0 : 1)).slice(0, 12);
  if (!all.length) return h("p", { class: "good" }, "Nothing needs attention.");
  return h("ul", { class: "notices" }, all.map(({ level, text, advice, link }) =>
    h("li", { class: level }, link, ": ", text, ". ",
      h("span", { class: "advice" }, advice, "."))));
}

function left(shown, all, what) {
  if (shown >= all) return null;
  return h("p", {}, `${number(shown)} of ${number(all)} ${what}: those that need attention, then `
    + "the busiest. Others are found by their name above.");
}

function draw(live, picture) {
  const { server, app_rows: apps, model_rows: models } = picture;
  const redis = { true: "connected", false: "away" }[server.redis_connected];
  renew(live,
    figures(["Answered", rate(server.per_second)],
      ["Applications", number(picture.applications)],
      ["Model versions", number(picture.models)],
      ["Container connections", number(server.container_connections)],
      ["Redis", redis ?? null, redis === "away" ? "bad" : null],
      ["Up for", duration(picture.at_ms - server.started_ms)],
      ["Version", server.version]),
    h("h2", {}, "Needs attention"), attention(picture),
    h("h2", {}, "Applications"),
    apps.length ? table(`The last ${number(apps[0].window_s)} s`, APPS,
      keyed(apps, (row) => row.name))
      : empty("There are no applications yet.", h("code", {},
        "clipper admin apps add NAME --input-type doubles --slo-ms 100"), " adds one."),
    left(apps.length, picture.applications, "applications"),
    h("h2", {}, "Models"),
    models.length ? table("Versions", MODELS, keyed(models, (row) => `${row.model}:${row.version}`))
      : empty("There are no models yet.", h("code", {}, "clipper deploy"), " serves one."),
    left(models.length, picture.models, "model versions"));
}

/** A field that leads to an application by its name, offered from the first letter on. */
function finder(signal) {
  const names = h("datalist", { id: "app-names" });
  let isAsked = false;
  const field = h("input", {
    id: "find", type: "search", list: "app-names", autocomplete: "off", spellcheck: "false",
    async focus() {
      if (isAsked) return;
      isAsked = true;
      const all = await post("/admin/get_all_applications", { verbose: false }).catch(() => []);
      if (!signal.aborted) names.append(...all.map((name) => h("option", { value: name })));
    },
  });
  return h("form", { class: "find", role: "search", submit(event) {
    event.preventDefault();
    if (field.value) location.hash = `#/app/${encodeURIComponent(field.value)}`;
  } }, h("label", { for: "find" }, "Application"), field, names, h("button", {}, "Show"));
}

export function overview({ main, signal, follow }) {
  const live = h("div", {}, empty("Asking the server."));
  main.replaceChildren(h("h1", {}, "Overview"), finder(signal), live);
  follow("", (picture) => draw(live, picture));
}
