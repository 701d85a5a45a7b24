// Plots as SVG. Each says in words what it shows, for those who do not see it.

import { h, number } from "./dom.js";

const [WIDTH, HEIGHT] = [640, 200];
const MARGIN = { left: 52, right: 12, top: 12, bottom: 24 };
const INNER = [WIDTH - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];

/** A round number not below `value`. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

function scales([fromX, toX], topY) {
  const spread = toX - fromX || 1;
  return [
    (x) => MARGIN.left + ((x - fromX) / spread) * INNER[0],
    (y) => MARGIN.top + INNER[1] - (Math.min(y, topY) / topY) * INNER[1],
  ];
}

function yAxis(y, top, unit) {
  return [0, top / 2, top].map((value) => [
    h("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value),
      y2: y(value) }),
    h("text", { class: "tick end", x: MARGIN.left - 6, y: y(value) + 4 },
      `${number(value, value && value < 5 ? 1 : 0)}${unit}`),
  ]);
}

function xAxis(x, from, to, words) {
  const text = (value, is) =>
    h("text", { class: `tick ${is}`, x: x(value), y: HEIGHT - 6 }, words(value));
  return [text(from, "start"), text(to, "end")];
}

function plot(title, is, ...children) {
  return h("svg", { class: `plot ${is}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": title }, h("title", {}, title), children);
}

const clock = (at) => new Date(at).toLocaleTimeString(undefined, { timeStyle: "short" });

/** The pieces of a line between gaps. */
function line(points, x, y) {
  let [path, isDrawing] = ["", false];
  for (const [at, value] of points) {
    if (value === null) {
      isDrawing = false;
      continue;
    }
    path += `${isDrawing ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    // One point alone is a dot.
    if (!isDrawing) path += "h0.1";
    isDrawing = true;
  }
  return path;
}

function legend(...items) {
  return h("p", { class: "legend" }, items.map(([is, text]) =>
    h("span", {}, h("i", { class: `swatch ${is}` }), text)));
}

/** Median and 99th percentile over time against the objective. */
export function latencies(points, objective) {
  const values = points.flatMap(({ p99_ms }) => p99_ms ?? []);
  const top = ceiling(Math.max(objective * 1.1, ...values));
  const span = [points[0].end_ms, points.at(-1).end_ms];
  const [x, y] = scales(span, top);
  const over = values.filter((value) => value > objective).length;
  const title = `Latency from ${clock(span[0])} to ${clock(span[1])}: the 99th percentile was `
    + `above the SLO of ${objective} ms in ${over} of ${values.length} steps with answers`;
  const series = (name) => line(points.map((point) => [point.end_ms, point[name]]), x, y);
  return h("figure", {},
    plot(title, "latencies", yAxis(y, top, ""), xAxis(x, ...span, clock),
      h("line", { class: "objective", x1: MARGIN.left, x2: WIDTH - MARGIN.right,
        y1: y(objective), y2: y(objective) }),
      h("path", { class: "p50", d: series("p50_ms") }),
      h("path", { class: "p99", d: series("p99_ms") })),
    legend(["p99", "99th percentile, ms"], ["p50", "median"], ["objective", "SLO"]));
}

/** Answers a second over time, by how they ended. */
export function outcomes(points, names, stepMs) {
  const rates = points.map(({ outcomes: counts }) => counts.map((n) => (n * 1000) / stepMs));
  const sums = rates.map((list) => list.reduce((a, b) => a + b, 0));
  const top = ceiling(Math.max(...sums));
  const span = [points[0].end_ms, points.at(-1).end_ms];
  const [x, y] = scales(span, top);
  const width = Math.max(INNER[0] / Math.max(points.length, 24) - 0.5, 0.8);
  const seen = names.filter((_, at) => rates.some((list) => list[at] > 0));
  const bars = points.flatMap(({ end_ms }, step) => {
    let below = 0;
    return names.map((name, at) => {
      const value = rates[step][at];
      if (!value) return null;
      below += value;
      const left = Math.max(x(end_ms) - width, MARGIN.left);
      return h("rect", { class: `outcome ${name}`, x: left.toFixed(1),
        y: y(below).toFixed(1), width: width.toFixed(1),
        height: Math.max(y(below - value) - y(below), 0.5).toFixed(1) });
    });
  });
  const all = sums.reduce((a, b) => a + b, 0);
  const of = (name) => rates.reduce((sum, list) => sum + list[names.indexOf(name)], 0);
  const parts = seen.map((name) => `${name} ${number(all ? (of(name) / all) * 100 : 0, 1)} %`);
  const title = `Answers a second from ${clock(span[0])} to ${clock(span[1])}: `
    + (parts.join(", ") || "none");
  return h("figure", {},
    plot(title, "outcomes", yAxis(y, top, ""), xAxis(x, ...span, clock), bars),
    legend(...seen.map((name) => [name, name.replaceAll("_", " ")])));
}

/** Times of batches by their size, and the line learned through them. */
export function batches(points, curve) {
  const sizes = [...points.map(([size]) => size), ...curve.map(({ queries }) => queries)];
  const times = [...points.map(([, took]) => took), ...curve.map(({ p99_ms }) => p99_ms)];
  const [last, top] = [Math.max(...sizes, 2), ceiling(Math.max(...times))];
  const [x, y] = scales([0, last], top);
  const drawn = (name) => line(curve.map((point) => [point.queries, point[name]]), x, y);
  const words = curve.map(({ queries, mean_ms, p99_ms }) =>
    `${queries} queries ${number(mean_ms, 2)} ms, 99 of 100 within ${number(p99_ms, 2)} ms`);
  const title = `Time of a batch by its size: ${points.length} batches`
    + (words.length ? `; learned: ${words.join("; ")}` : "; nothing learned yet");
  return h("figure", {},
    plot(title, "batches", yAxis(y, top, ""), xAxis(x, 0, last, (n) => number(n)),
      points.map(([size, took]) =>
        h("circle", { class: "batch", cx: x(size).toFixed(1), cy: y(took).toFixed(1), r: 2 })),
      h("path", { class: "p99", d: drawn("p99_ms") }),
      h("path", { class: "p50", d: drawn("mean_ms") })),
    legend(["batch", "a batch: ms by queries"], ["p50", "expected"],
      ["p99", "99 of 100 stay within"]));
}
