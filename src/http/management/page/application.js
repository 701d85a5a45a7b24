// An application: how it does against its objective, and why.

import { get } from "./api.js";
import { latencies, outcomes } from "./charts.js";
import {
  empty, figures, h, modelLink, ms, notices, number, rate, renew, share, table,
} from "./dom.js";
import { explained } from "./explained.js";

const sizes = (list) => {
  const few = [...list].sort(([, a], [, b]) => b - a).slice(0, 5);
  return few.map(([size, count]) => `${number(size)} (${number(count)})`).join(", ") || "none";
};

const LINKED = [
  { name: "Model", of: (row) => modelLink(row.model, row.version) },
  { name: "Weight", is: "number", of: (row) => share(row.weight) },
  { name: "Rate", is: "number", of: (row) => rate(row.per_second) },
  { name: "Replicas", is: "number", of: (row) => number(row.replicas) },
  { name: "Waiting", is: "number", of: (row) => number(row.queue) },
  { name: "Wait p99", is: "number", of: (row) => ms(row.wait_p99_ms) },
  { name: "Batch p50", is: "number", of: (row) => ms(row.batch_p50_ms) },
  { name: "Batch p99", is: "number", of: (row) => ms(row.batch_p99_ms) },
  { name: "Batch sizes", of: (row) => sizes(row.batch_sizes) },
  { name: "Cache hits", is: "number", of: (row) => share(row.cache_hit_share) },
  { name: "Loss", is: "number", of: (row) => number(row.loss, 3) },
];

const percents = (percent) => (typeof percent === "number" ? `${percent} %` : String(percent));

function rollout(it) {
  if (!it) return null;
  const steps = it.steps.map((percent, at) => {
    const isNow = it.state === "running" && at + 1 === it.step;
    const is = at + 1 < it.step ? "done" : isNow ? "now" : "";
    return h("li", { class: is, "aria-current": isNow ? "step" : null }, percents(percent));
  });
  const guards = it.guards.map((guard) => h("li", {}, `${guard.guard}: `,
    guard.value === undefined ? "nothing seen yet" : `${number(guard.value, 4)} of `
      + `${number(guard.seen)} seen, ${share(guard.alarm)} of the evidence for a rollback`));
  return h("section", { "aria-label": "Rollout" }, h("h2", {}, "Rollout"),
    h("p", {}, `${it.kind} from ${it.from} to ${it.to}: ${it.state}`, it.why ? `, ${it.why}` : "",
      it.waits_for ? `. The next step waits for ${it.waits_for}` : "", "."),
    h("ol", { class: "steps" }, steps),
    guards.length ? h("ul", {}, guards) : null);
}

function plots(row, history) {
  const points = [...history.points];
  if (row.answered) {
    // What is under way, as far as it is known.
    points.push({ end_ms: row.at_ms, p50_ms: row.p50_ms, p99_ms: row.p99_ms,
      outcomes: history.outcomes.map((name) => {
        const count = name === "prediction"
          ? Math.round((row.attainment ?? 0) * row.answered) : row.defaults[name] ?? 0;
        return (count / row.window_s) * (history.step_ms / 1000);
      }) });
  }
  if (!points.length) {
    return [empty(row.has_history === false && row.answered
      ? "There is no room for its history (dashboard.history_applications_max)."
      : "No query has come since the server's start: its history begins with the first.",
    h("a", { href: `#/predict/${encodeURIComponent(row.name)}` }, "Try a prediction"), ".")];
  }
  return [h("h3", {}, "Latency"), latencies(points, row.objective_ms),
    h("h3", {}, "Answers a second"), outcomes(points, history.outcomes, history.step_ms)];
}

function draw(live, picture, history, queries) {
  const { description } = picture;
  const defaults = Object.values(picture.defaults).reduce((a, b) => a + b, 0);
  const of = (count) => (picture.answered ? share(count / picture.answered) : number(null));
  renew(live,
    notices(picture.notices),
    figures(["In SLO", share(picture.attainment)],
      ["Rate", rate(picture.per_second)],
      ["Median", ms(picture.p50_ms)],
      ["99th percentile", ms(picture.p99_ms)],
      ["SLO", ms(picture.objective_ms)],
      ["Refused", number(picture.rejected)],
      ["Input", description.input_type],
      ["Policy", picture.policy ?? "default"],
      ["Default output", description.default_output],
      ["Cache", description.cache === false ? "off" : "on"]),
    h("h2", {}, "Over time"), plots(picture, history),
    h("h2", {}, `Defaults in the last ${number(picture.window_s)} s`),
    defaults ? table("By reason", [
      { name: "Reason", of: (row) => row.reason.replaceAll("_", " ") },
      { name: "Answers", is: "number", of: (row) => number(row.count) },
      { name: "Share", is: "number", of: (row) => of(row.count) },
    ], Object.entries(picture.defaults).map(([reason, count]) => ({ reason, count, key: reason })))
      : h("p", {}, "None."),
    h("h2", {}, "Models"),
    picture.linked.length ? table("Those that it asks", LINKED,
      picture.linked.map((row) => ({ ...row, key: `${row.model}:${row.version}` })))
      : empty("It asks no model.", h("code", {}, `clipper admin links add ${picture.name} MODEL`),
        " links one."),
    rollout(description.rollout),
    explained(queries));
}

export function application({ main, signal, follow, failed }, name) {
  const encoded = encodeURIComponent(name);
  const live = h("div", {}, empty("Asking the server."));
  main.replaceChildren(h("h1", {}, name),
    h("p", {}, h("a", { href: `#/predict/${encoded}` }, "Try a prediction"), ", ",
      h("a", { href: `#/changes?app=${encoded}` }, "its changes")), live);
  let [history, queries, asked] = [null, null, 0];
  const ask = async () => {
    history = await get(`/admin/dashboard/history?app=${encoded}`, signal);
    const of = (kind) => get(`/admin/explain?app=${encoded}&${kind}&limit=5`, signal)
      .then((answer) => answer.queries);
    queries = await Promise.all([of("slow"), of("default")]).catch((error) => {
      if (error.name === "AbortError") throw error;
      return null;
    });
  };
  follow(`?app=${encoded}`, async (picture) => {
    if (picture.gone) {
      renew(live, empty(`There is no application '${name}'.`,
        h("a", { href: "#/changes" }, "The changes"), " tell whether it was removed."));
      return;
    }
    try {
      const step = history?.step_ms ?? 0;
      if (picture.at_ms - asked >= Math.min(step || 0, 5000)) {
        asked = picture.at_ms;
        await ask();
      }
      if (history && !signal.aborted) draw(live, picture, history, queries);
    } catch (error) {
      failed(error);
    }
  });
}
