"use strict";
// Line charts and verdict strips as SVG. Text is added only as text nodes, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 48, right: 12, top: 10, bottom: 34 };
const MAX_MARKERS = 40; // curves with more points are drawn without markers

function make(tag, attributes = {}, ...children) {
  const html = ["div", "span", "i", "option"].includes(tag);
  const node = html ? document.createElement(tag) : document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function superscript(number) {
  return String(number).replace(/./g, (c) => (c === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[c]));
}

function format(value, digits = 4) {
  if (value === null || !Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(Math.min(digits - 1, 3)).split("e");
    const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return (short === "1" ? "" : short + "\u00d7") + "10" + superscript(Number(exponent));
  }
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });
}

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((s) => s * power >= raw * 0.999) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const every = Math.max(Math.ceil((last - first) / 5), 1);
  const found = [];
  for (let power = first; power <= last; power += every) {
    for (const factor of last - first <= 2 ? [1, 2, 5] : [1]) found.push(factor * 10 ** power);
  }
  const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  return inside.length > 1 ? inside : ticks(low, high, 3);
}

function scale(low, high, from, to, log) {
  const transform = log ? Math.log10 : (value) => value;
  const a = transform(low), b = transform(high);
  return (value) => from + ((transform(value) - a) / (b - a || 1)) * (to - from);
}

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function padded(low, high, log) {
  if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
  const pad = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.06;
  return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
}

// Draws axes and grid; returns the SVG, its scales and sizes, or null while the box has no width.
function frame(box, domain, label, height, yTicks) {
  const width = Math.floor(box.clientWidth);
  if (width < 60) return null;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
  const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
  const x = scale(domain[0], domain[1], MARGIN.left, right, false);
  let lastEnd = -Infinity;
  for (const value of ticks(domain[0], domain[1], Math.max(Math.floor(width / 85), 2))) {
    const text = format(value);
    const halfWidth = text.length * 3.2, centre = Math.min(x(value), width - halfWidth);
    if (centre - halfWidth < lastEnd + 6) continue;
    lastEnd = centre + halfWidth;
    svg.append(make("line", { x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4, class: "axis" }));
    svg.append(make("text", { x: centre, y: bottom + 16, "text-anchor": "middle" }, text));
  }
  svg.append(make("text", { x: right, y: height - 5, "text-anchor": "end" }, label));
  svg.append(make("line", { x1: MARGIN.left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
  if (yTicks) {
    for (const [y, text] of yTicks(MARGIN.top, bottom)) {
      svg.append(make("line", { x1: MARGIN.left, x2: right, y1: y, y2: y, class: "grid" }));
      svg.append(make("text", { x: MARGIN.left - 7, y: y + 3.7, "text-anchor": "end" }, text));
    }
  }
  return { svg, x, width, height, bottom, right };
}

// chart: {title, unit, log, references: [{name, value, run}]}; series: [{run, name, dashed, x: [], y: []}].
function lineChart(box, chart, series, domain, label) {
  const factor = chart.unit === "%" ? 100 : 1;
  const all = [];
  for (const curve of series) for (const y of curve.y) if (y !== null && !(chart.log && y <= 0)) all.push(y * factor);
  for (const reference of chart.references) if (!(chart.log && reference.value <= 0)) all.push(reference.value * factor);
  const [low, high] = all.length ? padded(...extent(all), chart.log) : [1, 10];
  let y;
  const drawn = frame(box, domain, label, 190, (top, bottom) => {
    y = scale(low, high, bottom, top, chart.log);
    return (chart.log ? logTicks(low, high) : ticks(low, high, 5)).map((value) => [y(value), format(value)]);
  });
  if (!drawn) return null;
  const { svg, x } = drawn;
  for (const reference of chart.references) {
    if (chart.log && reference.value <= 0) continue;
    const at = y(reference.value * factor);
    const group = make("g", reference.run === null ? {} : { class: `r${reference.run % 8}` });
    group.append(make("line", { x1: MARGIN.left, x2: drawn.right, y1: at, y2: at, class: "reference" }));
    group.append(make("text", { x: drawn.right, y: at - 3.5, "text-anchor": "end", class: "named" }, reference.name));
    svg.append(group);
  }
  for (const curve of series) {
    const group = make("g", { class: `r${curve.run % 8}` });
    let path = "", pen = false;
    const points = [];
    for (let i = 0; i < curve.x.length; i++) {
      const value = curve.y[i] === null ? null : curve.y[i] * factor;
      if (curve.x[i] === null) continue;
      if (value === null || (chart.log && value <= 0)) {
        pen = false;
        if (value === null) group.append(make("path", { class: "lost", d: `M${x(curve.x[i]) - 3},${drawn.bottom - 7}l6,6m0,-6l-6,6` }, make("title", {}, "not finite")));
        continue;
      }
      const px = x(curve.x[i]).toFixed(1), py = y(value).toFixed(1);
      path += `${pen ? "L" : "M"}${px},${py}`;
      pen = true;
      points.push([px, py]);
    }
    group.append(make("path", { class: curve.dashed ? "line dashed" : "line", d: path || "M0,0" }));
    if (points.length <= MAX_MARKERS) for (const [cx, cy] of points) group.append(make("circle", { cx, cy, r: points.length > 15 ? 1.8 : 2.6, class: "point" }));
    svg.append(group);
  }
  const overlay = make("g", {});
  svg.append(overlay);
  box.replaceChildren(svg);
  return { ...drawn, y, factor, overlay, series };
}

function nearest(curve, at) {
  let best = -1, distance = Infinity;
  for (let i = 0; i < curve.x.length; i++) {
    if (curve.x[i] === null) continue;
    const gap = Math.abs(curve.x[i] - at);
    if (gap < distance) [best, distance] = [i, gap];
  }
  return best;
}

// Draws the crosshair at a value of the x axis; returns the nearest points, [[curve, index]].
function drawCrosshair(drawn, at, log) {
  const found = [];
  drawn.overlay.replaceChildren();
  if (at === null) return found;
  const px = Math.min(Math.max(drawn.x(at), MARGIN.left), drawn.right);
  drawn.overlay.append(make("line", { x1: px, x2: px, y1: MARGIN.top, y2: drawn.bottom, class: "cross" }));
  for (const curve of drawn.series) {
    const i = nearest(curve, at);
    if (i < 0) continue;
    const ended = at > curve.x[i] && i === curve.x.length - 1, to = Math.abs(drawn.x(at) - drawn.x(curve.x[i]));
    if (ended && to > 12) continue; // the run ended before
    found.push([curve, i]);
    const value = curve.y[i] === null ? null : curve.y[i] * drawn.factor;
    if (value === null || (log && value <= 0)) continue;
    drawn.overlay.append(make("circle", { cx: drawn.x(curve.x[i]), cy: drawn.y(value), r: 4, class: `point halo r${curve.run % 8}` }));
  }
  return found;
}

// Verdicts over the run. rows: [{name, parts: [{from, to, verdict, kind, step}]}]; kinds: CSS class by verdict.
function drawVerdictStrip(box, rows, kinds, domain, label, named) {
  const each = named ? 46 : 28;
  const drawn = frame(box, domain, label, rows.length * each + MARGIN.bottom + 4);
  if (!drawn) return;
  const { svg, x } = drawn;
  rows.forEach((row, number) => {
    const top = number * each + (named ? 18 : 0);
    if (named) svg.append(make("text", { x: MARGIN.left, y: top - 5, class: "of" }, row.name));
    for (const part of row.parts) {
      const left = x(part.from), width = Math.max(x(part.to) - left - 1.5, 2);
      const title = part.kind ? `${part.verdict}, ${part.kind}` : part.verdict;
      const group = make("g", { class: kinds[part.verdict] || "other" }, make("title", {}, `${title}, from step ${part.step}`));
      group.append(make("rect", { x: left, y: top, width, height: 22, rx: 4, class: "verdict-part" }));
      if (width > title.length * 6.6 + 10) group.append(make("text", { x: left + 8, y: top + 15, class: "on" }, title));
      svg.append(group);
    }
  });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", rows.map((row) => `${row.name}: ${row.parts.map((part) => `${part.verdict} from step ${part.step}`).join(", ")}`).join("; "));
  box.replaceChildren(svg);
}
