// The three charts of the last quarter of an hour, drawn by uPlot.

import { milliseconds, number, rate, share } from "/page/show.js";

const HEIGHT = 150;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** What each chart draws: its columns, how a value is written, and where its axis begins and ends. */
const CHARTS = [
  {
    id: "rate", label: "Requests a second",
    columns: (history) => [history.rate, history.failed_rate],
    series: [["requests", "--accent", true], ["failed", "--bad", false]],
    write: (value) => number(value),
    range: (low, high) => [0, Math.max(1, high * 1.1)],
    tell: ([all, failed]) => (failed > 0 ? `${rate(all)}, ${rate(failed)} failed` : rate(all)),
  },
  {
    id: "hits", label: "Answered from copies",
    columns: (history) => [history.hit_ratio],
    series: [["from copies", "--accent", true]],
    write: (value) => `${Math.round(100 * value)} %`,
    range: () => [0, 1],
    tell: ([hits]) => share(hits),
  },
  {
    id: "latency", label: "Latency", logarithmic: true,
    columns: (history) => [history.p50_ms, history.p99_ms],
    series: [["half are faster", "--accent", false], ["99 % are faster", "--warning", false]],
    write: (value) => (value >= 1000 ? `${value / 1000} s` : `${value} ms`),
    range: (low, high) => [10 ** Math.floor(Math.log10(Math.max(0.01, low ?? 0.1))), 10 ** Math.ceil(Math.log10(Math.max(1, high ?? 1) * 1.001))],
    tell: ([p50, p99]) => `${milliseconds(p50)} half, ${milliseconds(p99)} p99`,
  },
];

const drawn = new Map();
let last = null;

/** Draws the history; charts are made when there is something to draw, and anew when the colours change. */
export function charts(status) {
  last = status;
  for (const chart of CHARTS) {
    const data = columns(chart, status);
    const plot = drawn.get(chart.id) ?? make(chart, data);
    plot.setData(data, false);
    // Since the start, as long as that is less than what is remembered.
    const length = Math.min(900, Math.max(60, status.uptime_s));
    plot.setScale("x", { min: status.at_s - length, max: status.at_s });
    tell(chart, plot.cursor.idx);
  }
}

function columns(chart, { history }) {
  return [history.at_s, ...chart.columns(history)];
}

/** Writes the last value, or the one that is pointed at. */
function tell(chart, place) {
  const [times, ...values] = columns(chart, last);
  const at = place ?? times.length - 1;
  const text = times.length === 0 ? "in a few seconds" : chart.tell(values.map((column) => column[at] ?? null));
  const ago = place === null || place === undefined ? "" : `${new Date(1000 * times[at]).toLocaleTimeString("en-GB")}: `;
  document.getElementById(`${chart.id}-value`).textContent = ago + text;
  document.getElementById(`${chart.id}-chart`).setAttribute("aria-label", `${chart.label} in the last 15 minutes; now ${text}`);
}

function make(chart, data) {
  const holder = document.getElementById(`${chart.id}-chart`);
  const axis = { stroke: color("--muted"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: color("--line"), width: 1 };
  const plot = new uPlot({
    width: holder.clientWidth, height: HEIGHT, padding: [10, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { time: true },
      y: { range: (_, low, high) => chart.range(low, high), distr: chart.logarithmic ? 3 : 1 },
    },
    axes: [
      { ...axis, grid: { show: false }, size: 26, values: clock, space: 76 },
      { ...axis, grid, size: 52, space: 34, ...(chart.logarithmic ? { splits: decades } : {}), values: (_, splits) => splits.map((value) => (value === null ? "" : chart.write(value))) },
    ],
    series: [{}, ...chart.series.map(([label, name, filled]) => ({
      label, stroke: color(name), width: 2, spanGaps: true, points: { show: data[0].length < 3, size: 5 },
      fill: filled ? color("--accent-fill") : undefined,
    }))],
    hooks: { setCursor: [(plot) => tell(chart, plot.cursor.idx)] },
  }, data, holder);
  drawn.set(chart.id, plot);
  return plot;
}

/** Times of day; with seconds where the minutes would all be the same. */
function clock(plot, splits) {
  const short = plot.scales.x.max - plot.scales.x.min < 300;
  const style = { hour: "2-digit", minute: "2-digit", second: short ? "2-digit" : undefined };
  return splits.map((at) => new Date(1000 * at).toLocaleTimeString("en-GB", style));
}

/** On a logarithmic axis, the powers of ten. */
function decades(plot, axis, low, high) {
  const count = Math.round(Math.log10(high / low)) + 1;
  return Array.from({ length: count }, (_, place) => Number((low * 10 ** place).toPrecision(1)));
}

function again() {
  for (const plot of drawn.values()) plot.destroy();
  drawn.clear();
  if (last !== null) charts(last);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
new ResizeObserver(() => {
  for (const [id, plot] of drawn) {
    const width = document.getElementById(`${id}-chart`).clientWidth;
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }
}).observe(document.getElementById("charts"));
