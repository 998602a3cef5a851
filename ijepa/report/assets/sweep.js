// The script of a sweep's page: a sortable table, a scatter plot of any two columns, parallel coordinates.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = [...document.querySelectorAll("table.sortable tbody tr")];
  const get = (id) => document.getElementById(id);
  let picked = null;

  const shown = (column, value) => (value === null ? "\u2013" : column.is_text ? String(value) : format(column.is_fraction ? 100 * value : value));
  const titled = (column) => column.title + (column.is_fraction ? ", %" : "");

  // --- table ---------------------------------------------------------------------------------------------------------
  const heads = [...document.querySelectorAll("table.sortable th button")];
  function sort(number, down) {
    const valueOf = (row) => data.jobs[row.dataset.job].values[number];
    rows.sort((one, other) => {
      const a = valueOf(one), b = valueOf(other);
      if (a === null || b === null) return (a === null) - (b === null);
      return (data.columns[number].is_text ? String(a).localeCompare(String(b)) : a - b) * (down ? -1 : 1);
    });
    heads.forEach((head, other) => head.parentNode.setAttribute("aria-sort", other !== number ? "none" : down ? "descending" : "ascending"));
    rows[0]?.parentNode.append(...rows);
  }
  heads.forEach((head, number) => head.addEventListener("click", () => sort(number, head.parentNode.getAttribute("aria-sort") === "ascending")));

  // --- axes ----------------------------------------------------------------------------------------------------------
  function axisScale(number, from, to) {
    const column = data.columns[number];
    const values = data.jobs.map((job) => job.values[number]).filter((value) => value !== null);
    if (column.is_text) {
      const words = [...new Set(values)];
      const step = (to - from) / words.length;
      const at = (word) => from + (words.indexOf(word) + 0.5) * step;
      return { at, marks: words.map((word) => [at(word), word]) };
    }
    const factor = column.is_fraction ? 100 : 1;
    const all = values.map((value) => value * factor);
    const log = column.kind === "key" && all.length > 0 && Math.min(...all) > 0 && Math.max(...all) / Math.min(...all) >= 20;
    const [low, high] = all.length ? padded(...extent(all), log) : [0, 1];
    const position = scale(low, high, from, to, log);
    const distinct = [...new Set(all)].sort((a, b) => a - b);
    const marked = column.kind === "key" && distinct.length <= 6 ? distinct : log ? logTicks(low, high) : ticks(low, high, 5);
    return { at: (value) => position(value * factor), marks: marked.map((value) => [position(value), format(value)]) };
  }

  // --- scatter -------------------------------------------------------------------------------------------------------
  const keys = data.columns.map((_, number) => number).filter((number) => data.columns[number].kind === "key");
  for (const [id, columns] of [["across", data.columns.keys()], ["up", data.columns.keys()], ["tint", keys]]) {
    for (const number of columns) get(id).append(make("option", { value: number }, data.columns[number].title));
  }
  get("across").value = keys.find((number) => !data.columns[number].is_text && data.columns[number].name !== "seed") ?? keys[0] ?? 0;
  get("up").value = data.metric;
  get("tint").value = keys.find((number) => String(number) !== get("across").value) ?? keys[0] ?? 0;

  function scatter() {
    const box = get("points"), width = Math.floor(box.clientWidth), height = 340;
    if (width < 60) return;
    const [across, up, tint] = ["across", "up", "tint"].map((id) => Number(get(id).value));
    const left = 64, right = width - 16, top = 12, bottom = height - 40;
    const x = axisScale(across, left, right), y = axisScale(up, bottom, top);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
    svg.setAttribute("aria-label", `${titled(data.columns[up])} against ${titled(data.columns[across])}`);
    for (const [at, text] of y.marks) {
      svg.append(make("line", { x1: left, x2: right, y1: at, y2: at, class: "grid" }));
      svg.append(make("text", { x: left - 7, y: at + 3.7, "text-anchor": "end" }, text));
    }
    let lastEnd = -Infinity;
    for (const [at, text] of x.marks) {
      if (at - text.length * 3.3 < lastEnd + 4) continue;
      lastEnd = at + text.length * 3.3;
      svg.append(make("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, text));
    }
    svg.append(make("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }));
    svg.append(make("text", { x: right, y: height - 6, "text-anchor": "end" }, titled(data.columns[across])));
    const groups = keys.length ? [...new Set(data.jobs.map((job) => job.values[tint]))] : [null];
    data.jobs.forEach((job, number) => {
      const a = job.values[across], b = job.values[up];
      if (a === null || b === null) return;
      const dot = make("circle", { cx: x.at(a), cy: y.at(b), r: 5, class: `job r${Math.max(groups.indexOf(job.values[tint]), 0) % 8}`, "data-job": number });
      dot.append(make("title", {}, job.name));
      svg.append(dot);
    });
    box.replaceChildren(svg);
    const said = keys.length ? groups.map((group, number) => make("span", { class: `r${number % 8}` }, make("i", { class: "swatch" }), `${shown(data.columns[tint], group)}  `)) : [];
    get("said").replaceChildren(`${titled(data.columns[up])}; colour: ${keys.length ? data.columns[tint].title : ""}  `, ...said);
    addHoverListeners(box);
  }

  // --- parallel coordinates ------------------------------------------------------------------------------------------
  function parallel() {
    const box = get("lines"), width = Math.floor(box.clientWidth), height = 380;
    if (width < 60) return;
    const fullWidth = Math.max(width, data.axes.length * 130), top = 44, bottom = height - 22;
    const svg = make("svg", { viewBox: `0 0 ${fullWidth} ${height}`, width: fullWidth, height, role: "img", "aria-label": "parallel coordinates" });
    const axes = data.axes.map((number, place) => ({
      number, x: 70 + (place * (fullWidth - 140)) / Math.max(data.axes.length - 1, 1), ...axisScale(number, bottom, top),
    }));
    const values = data.jobs.map((job) => job.values[data.metric]);
    const [low, high] = extent(values.filter((value) => value !== null));
    const order = data.jobs.map((_, number) => number).filter((number) => values[number] !== null);
    const goodness = (number) => { const part = high > low ? (values[number] - low) / (high - low) : 1; return data.lower_is_better ? 1 - part : part; };
    order.sort((one, other) => goodness(one) - goodness(other));
    for (const number of order) {
      const points = axes.filter((axis) => data.jobs[number].values[axis.number] !== null)
        .map((axis) => `${axis.x.toFixed(1)},${axis.at(data.jobs[number].values[axis.number]).toFixed(1)}`);
      const line = make("polyline", { points: points.join(" "), class: "job", "data-job": number, opacity: (0.15 + 0.85 * goodness(number) ** 1.5).toFixed(2) });
      line.append(make("title", {}, data.jobs[number].name));
      svg.append(line);
    }
    axes.forEach((axis, place) => {
      svg.append(make("line", { x1: axis.x, x2: axis.x, y1: top, y2: bottom, class: "axis" }));
      const title = titled(data.columns[axis.number]), short = title.length > 20 ? `${title.slice(0, 19)}\u2026` : title;
      svg.append(make("text", { x: axis.x, y: place % 2 ? 30 : 14, "text-anchor": "middle", class: "of" }, short, make("title", {}, title)));
      let last = Infinity;
      for (const [at, text] of [...axis.marks].sort((one, other) => other[0] - one[0])) {
        if (last - at < 13) continue;
        last = at;
        svg.append(make("text", { x: axis.x + 6, y: at + 3.7, class: "on-axis" }, text.length > 14 ? `${text.slice(0, 13)}\u2026` : text));
      }
    });
    box.replaceChildren(svg);
    addHoverListeners(box);
  }

  // --- highlight one job in the table and both plots -----------------------------------------------------------------
  function pick(number) {
    if (number === picked) return;
    picked = number;
    for (const each of document.querySelectorAll("[data-job]")) {
      each.classList.toggle("picked", number !== null && each.dataset.job === number);
      each.classList.toggle("left", number !== null && each.dataset.job !== number && each.tagName !== "TR");
    }
  }
  function addHoverListeners(box) {
    for (const each of box.querySelectorAll("[data-job]")) {
      each.addEventListener("pointerenter", () => pick(each.dataset.job));
      each.addEventListener("pointerleave", () => pick(null));
    }
  }
  rows.forEach((row) => {
    row.addEventListener("pointerenter", () => pick(row.dataset.job));
    row.addEventListener("pointerleave", () => pick(null));
  });

  function draw() { scatter(); parallel(); }
  for (const id of ["across", "up", "tint"]) get(id).addEventListener("change", scatter);
  new ResizeObserver(draw).observe(document.querySelector("main"));
  sort(data.metric, !data.lower_is_better);
  draw();
})();
