// Queries that were slow or got the default output, and why.

import { empty, h, ms, number, time } from "./dom.js";

function times(list) {
  return h("dl", { class: "times" }, Object.entries(list ?? {})
    .filter(([, took]) => took !== null && took > 0)
    .map(([name, took]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")),
      h("dd", {}, ms(took)))));
}

function model(it) {
  const parts = [`${it.model}:${it.version}`, it.outcome?.replaceAll("_", " "),
    it.cache ? `cache ${it.cache}` : null,
    it.replica === null || it.replica === undefined ? null : `replica ${it.replica}`];
  const attempts = (it.attempts ?? []).map((attempt) => h("li", {},
    `${attempt.kind} attempt on replica ${attempt.replica}, ${number(attempt.queries)} queries, `
    + `after ${ms(attempt.began_ms)}, took ${ms(attempt.took_ms)}: ${attempt.end}`));
  return h("li", {}, parts.filter(Boolean).join(", "),
    it.batch ? `. Batch of ${number(it.batch.queries)}: ${it.batch.text}` : "",
    attempts.length ? h("ol", {}, attempts) : null);
}

const reasons = (it) => it.because?.map(({ text }) => text) ?? [];

function details(it, why) {
  return [why.length ? h("ul", {}, why.map((text) => h("li", {}, text))) : null,
    times(it.times_ms),
    it.models?.length ? h("ul", {}, it.models.map(model)) : null];
}

function query(it) {
  const why = reasons(it);
  return h("details", { "data-key": String(it.query_id) },
    h("summary", {}, `Query ${it.query_id}, `, time(it.at), `: ${it.outcome.replaceAll("_", " ")} `
      + `after ${ms(it.latency_ms)}`, why.length ? `. ${why[0]}` : ""),
    it.default ? h("p", {}, it.default.explanation) : null, details(it, why.slice(1)));
}

/** Why one answer is what it is. */
export function explanation(it) {
  return h("section", { "aria-label": "Explanation" }, h("h2", {}, "Why"),
    h("p", {}, `${it.outcome.replaceAll("_", " ")} after ${ms(it.latency_ms)} of `
      + `${ms(it.slo_ms)}, by the policy ${it.policy.name}`), details(it, reasons(it)));
}

function list(title, queries, none) {
  return [h("h3", {}, title), queries.length ? queries.map(query) : empty(none)];
}

/** The last slow ones, and the last defaulted ones; nothing where the server does not tell. */
export function explained(queries) {
  if (!queries) return null;
  const [slow, defaulted] = queries;
  return h("section", { "aria-label": "Explained queries" }, h("h2", {}, "Why"),
    list("The last slow queries", slow, "None is kept."),
    list("The last default outputs", defaulted, "None is kept."));
}
