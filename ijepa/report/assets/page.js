// The page's script: draws curves; the reader chooses x axis, runs, steps, configuration keys and pictures.

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const hidden = new Set();
  const charts = [];
  const several = data.runs.length > 1;
  let axis = "step", crosshair = null, xDomain = null;

  // --- x axis --------------------------------------------------------------------------------------------------------
  const select = document.getElementById("axis");
  const usable = Object.keys(data.axes).filter((name) => data.runs.some((run) => run.axes[name]));
  if (select) {
    for (const name of usable) select.append(make("option", { value: name }, data.axes[name]));
    select.value = axis;
    select.addEventListener("change", () => { axis = select.value; crosshair = null; redraw(); });
  }

  function domain() {
    const values = [];
    data.runs.forEach((run, number) => {
      if (!hidden.has(number)) for (const value of run.axes[axis] || []) if (value !== null) values.push(value);
    });
    const [low, high] = extent(values);
    if (!values.length) return [0, 1];
    return [Math.min(low, 0), high > Math.min(low, 0) ? high : low + 1];
  }

  // A step's position on the x axis, interpolated between rows.
  function axisPosition(run, step) {
    const steps = run.axes.step || [], places = run.axes[axis] || [];
    let before = -1;
    for (let i = 0; i < steps.length && steps[i] <= step; i++) if (places[i] !== null) before = i;
    if (before < 0) return 0;
    let after = before + 1;
    while (after < steps.length && places[after] === null) after++;
    if (after >= steps.length) return places[before];
    return places[before] + ((step - steps[before]) / (steps[after] - steps[before])) * (places[after] - places[before]);
  }

  // --- curves --------------------------------------------------------------------------------------------------------
  function visibleSeries(column) {
    const found = [];
    data.runs.forEach((run, number) => {
      const curve = run.series[column], along = run.axes[axis];
      if (curve && along && !hidden.has(number)) {
        found.push({ run: number, name: run.name, dashed: number >= 8, x: curve.at.map((row) => along[row]), y: curve.values });
      }
    });
    return found;
  }

  function draw(item) {
    const series = visibleSeries(item.column);
    item.series = series;
    const chart = { ...item.chart, log: item.log };
    chart.references = chart.references.filter((reference) => reference.run === null || !hidden.has(reference.run));
    item.drawn = lineChart(item.box, chart, series, xDomain, data.axes[axis]);
    if (!item.drawn) return;
    const descriptions = series.map((curve) => {
      const finite = curve.y.map((value, i) => [curve.x[i], value]).filter(([, value]) => value !== null);
      if (!finite.length) return `${curve.name}: no finite value`;
      const [first, last] = [finite[0], finite[finite.length - 1]].map(([at, value]) => `${show(item, value)} at ${format(at)}`);
      return `${several ? curve.name + ": " : ""}${first}, ${last}`;
    });
    const svg = item.drawn.svg;
    svg.setAttribute("role", "img");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", `${item.chart.title} against ${data.axes[axis]}. ${descriptions.join("; ")}. Arrow keys read values.`);
    svg.addEventListener("pointermove", (event) => {
      const bounds = svg.getBoundingClientRect();
      const across = ((event.clientX - bounds.left) / bounds.width) * item.drawn.width;
      const share = (across - MARGIN.left) / (item.drawn.right - MARGIN.left);
      moveCrosshairNextFrame(item, xDomain[0] + Math.min(Math.max(share, 0), 1) * (xDomain[1] - xDomain[0]));
    });
    svg.addEventListener("pointerleave", () => moveCrosshairNextFrame(item, null));
    svg.addEventListener("blur", () => moveCrosshair(item, null));
    svg.addEventListener("keydown", (event) => onArrowKey(item, event));
  }

  function onArrowKey(item, event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !item.series.length) return;
    event.preventDefault();
    const places = [...new Set(item.series.flatMap((curve) => curve.x))].filter((value) => value !== null).sort((a, b) => a - b);
    if (crosshair === null) return moveCrosshair(item, step > 0 ? places[0] : places[places.length - 1]);
    const further = step > 0 ? places.find((value) => value > crosshair) : places.filter((value) => value < crosshair).pop();
    if (further !== undefined) moveCrosshair(item, further);
  }

  function show(item, value) {
    return value === null ? "not finite" : item.chart.unit === "%" ? `${format(value * 100)} %` : format(value);
  }

  let pendingMove = null;
  function moveCrosshairNextFrame(item, at) { // at most once per frame
    if (!pendingMove) requestAnimationFrame(() => { const [each, place] = pendingMove; pendingMove = null; moveCrosshair(each, place); });
    pendingMove = [item, at];
  }

  function moveCrosshair(target, at) {
    crosshair = at;
    for (const item of charts) {
      if (!item.drawn || !item.drawn.svg.isConnected) continue;
      const found = drawCrosshair(item.drawn, at, item.log);
      item.tip.hidden = item !== target || !found.length;
      if (item.tip.hidden) continue;
      const [curve, i] = found[0];
      item.tip.replaceChildren(make("div", { class: "head" }, make("span", {}, `${data.axes[axis]} ${format(curve.x[i], 5)}`)));
      for (const [each, index] of found) {
        const name = make("span", {}, make("i", { class: `swatch r${each.run % 8}` }), several ? each.name : item.chart.title);
        item.tip.append(make("div", {}, name, make("span", {}, show(item, each.y[index]))));
      }
      item.box.append(item.tip);
      const px = item.drawn.x(at), width = item.tip.offsetWidth;
      const left = px + 14 + width > item.drawn.width ? px - 14 - width : px + 14;
      item.tip.style.left = `${Math.max(Math.min(left, item.drawn.width - width), 0)}px`;
      item.tip.style.top = "6px";
    }
  }

  for (const figure of document.querySelectorAll(".chart")) {
    const chart = data.charts[figure.dataset.chart], column = chart.column;
    const item = { column, chart, box: figure.querySelector(".plot"), log: chart.log, drawn: null, series: [] };
    item.tip = make("div", { class: "tip", role: "status" });
    const values = data.runs.flatMap((run) => (run.series[column] ? run.series[column].values : [])).filter((value) => value !== null);
    const button = figure.querySelector(".log");
    const [low, high] = extent(values);
    button.hidden = !(values.length > 1 && low > 0 && (chart.log || high / low > 5));
    item.log = item.log && low > 0;
    button.setAttribute("aria-pressed", item.log);
    button.setAttribute("aria-label", `${chart.title}: logarithmic scale`);
    button.addEventListener("click", () => {
      item.log = !item.log;
      button.setAttribute("aria-pressed", item.log);
      draw(item);
    });
    if (!several && values.length) {
      const value = figure.querySelector(".value");
      value.classList.add("r0");
      value.textContent = show(item, values[values.length - 1]).replace(" %", "");
    }
    charts.push(item);
  }

  // --- verdicts ------------------------------------------------------------------------------------------------------
  const stripBox = document.querySelector("#strip .plot");
  function drawStrip() {
    if (!stripBox) return;
    const rows = [];
    data.runs.forEach((run, number) => {
      if (!run.verdicts.length || hidden.has(number)) return;
      const parts = [];
      run.verdicts.forEach((verdict, i) => {
        const next = run.verdicts[i + 1], last = parts[parts.length - 1];
        const to = axisPosition(run, next ? next.step : Math.max(run.steps, verdict.step));
        if (last && last.verdict === verdict.verdict && last.kind === verdict.kind) last.to = to;
        else parts.push({ from: axisPosition(run, verdict.step), to, ...verdict });
      });
      rows.push({ name: run.name, parts });
    });
    drawVerdictStrip(stripBox, rows, data.kinds, xDomain, data.axes[axis], several);
  }

  function redraw() {
    xDomain = domain();
    charts.forEach(draw);
    drawStrip();
  }

  for (const chip of document.querySelectorAll(".chip")) {
    chip.addEventListener("click", () => {
      const run = Number(chip.dataset.run);
      if (!hidden.delete(run)) hidden.add(run);
      chip.setAttribute("aria-pressed", !hidden.has(run));
      redraw();
    });
  }

  // --- pictures ------------------------------------------------------------------------------------------------------
  for (const shown of document.querySelectorAll(".shown[data-steps]")) {
    const steps = shown.dataset.steps.split(" ").map(Number);
    const slider = shown.querySelector("input"), output = shown.querySelector("output");
    slider.addEventListener("input", () => {
      const chosen = steps[slider.value];
      output.textContent = chosen.toLocaleString("en");
      slider.setAttribute("aria-valuetext", `step ${chosen}`);
      for (const figure of shown.querySelectorAll("figure")) {
        const frames = [...figure.querySelectorAll(".frame")];
        const current = frames.filter((each) => Number(each.dataset.step) <= chosen).pop() || frames[0];
        for (const each of frames) each.hidden = each !== current;
      }
    });
  }

  const viewer = document.getElementById("viewer");
  const frames = () => [...document.querySelectorAll(".frame:not([hidden])")];
  let viewed = null;
  function view(frame) {
    viewed = frame;
    const image = frame.querySelector("img");
    viewer.querySelector("img").src = image.src;
    viewer.querySelector("img").alt = image.alt;
    viewer.querySelector("p").textContent = image.alt;
    if (!viewer.open) viewer.showModal();
  }
  for (const frame of document.querySelectorAll(".frame")) frame.addEventListener("click", () => view(frame));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], all = frames();
    const next = step && all[all.indexOf(viewed) + step];
    if (next) view(next);
  });

  // --- configuration -------------------------------------------------------------------------------------------------
  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let matches = 0;
    for (const leaf of document.querySelectorAll(".leaf")) {
      leaf.hidden = !leaf.dataset.text.includes(wanted);
      if (!leaf.hidden) matches++;
    }
    for (const node of document.querySelectorAll(".node")) {
      node.hidden = !node.querySelector(".leaf:not([hidden])");
      if (wanted && !node.hidden) node.open = true;
    }
    if (wanted) for (const each of document.querySelectorAll(".config")) each.open = true;
    document.getElementById("none").hidden = matches > 0;
  });

  redraw();
  let wide = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth !== wide) { wide = document.body.clientWidth; redraw(); }
  });
  for (const group of document.querySelectorAll("details.group")) {
    group.addEventListener("toggle", () => charts.filter((item) => group.open && !item.drawn && group.contains(item.box)).forEach(draw));
  }
})();
