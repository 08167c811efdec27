"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const nameOf = (row) => data.submissions[row.submission].name;
  const LABELS = {
    time: "submission time, s", steps: "steps", examples: "examples", passes: "model passes",
    memory: "peak memory, MiB", energy: "energy, J",
  };

  // What is shown. A hidden submission keeps its colour: looks are given out in Python, by name.
  const shown = { workload: "", kind: "", hidden: new Set() };
  const kinds = new Map();
  for (const row of all("[data-submission]")) {
    if (row.dataset.kinds !== "*") kinds.set(row.dataset.submission, row.dataset.kinds.split(" "));
  }
  const visible = (name) =>
    !shown.hidden.has(name) && (!shown.kind || (kinds.get(name) || []).includes(shown.kind));

  // Appearance

  const dark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const theme = (light) => {
    const isDark = !light && !printing && dark.matches;
    return isDark
      ? { colours: data.palette.dark, paper: "#14161a", ink: "#e4e7eb", muted: "#a2a9b4", line: "#30353c" }
      : { colours: data.palette.light, paper: "#ffffff", ink: "#1b1d21", muted: "#5a616b", line: "#dfe2e6" };
  };
  const colourOf = (row, look) => look.colours[data.submissions[row.submission].colour];
  const markerOf = (row) => data.markers[data.submissions[row.submission].marker];
  const faded = (colour, share) => colour + Math.round(share * 255).toString(16).padStart(2, "0");
  // Plotly reads a little HTML in its texts; names are no HTML.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const labelOf = (row, several) => plain(nameOf(row)) + (several ? ` · ${plain(row.effort)}` : "");

  const axis = (title, look, more = {}) => ({
    title: { text: title, standoff: 8 }, color: look.muted, gridcolor: look.line, linecolor: look.line,
    zeroline: false, automargin: true, uirevision: title, ...more,
  });
  const layout = (look, more) => ({
    paper_bgcolor: look.paper, plot_bgcolor: look.paper, hovermode: "closest",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif", size: 12, color: look.ink },
    margin: { l: 10, r: 12, t: 12, b: 10 },
    hoverlabel: { bgcolor: look.paper, bordercolor: look.line, font: { color: look.ink }, namelength: -1 },
    legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0, tracegroupgap: 0, font: { color: look.ink } },
    uirevision: "kept",  // what was toggled in the legend stays so
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...more,
  });

  // Learning curves

  const along = (points, x) =>
    Array.isArray(points[x]) ? points[x] : points.steps.map((step) => step * points[x]);

  function curves(section, figure, look) {
    const x = checked(figure) || "time";
    const series = section.curves.filter((one) => visible(nameOf(one)));
    const several = new Set(section.curves.map((one) => one.effort)).size > 1;
    const lines = [];
    const values = [];
    for (const one of series) {
      const colour = colourOf(one, look);
      const label = labelOf(one, several);
      const group = { legendgroup: label, name: label, type: "scatter", connectgaps: false };
      one.traces.forEach((trace, number) => {
        const only = !one.median && number === 0;
        values.push(...trace.points.value);
        lines.push({
          ...group, x: along(trace.points, x), y: trace.points.value, mode: "lines", showlegend: only,
          line: { color: faded(colour, !one.median ? 0.7 : series.length > 8 ? 0.22 : 0.4), width: 1, dash: trace.tainted ? "dot" : "solid" },
          hovertemplate: `${label}, seed ${trace.seed}, ${plain(trace.outcome.replace("_", " "))}` +
            `${trace.tainted ? ", tainted" : ""}<br>%{y:.4~g} at %{x:,.4~g}<extra></extra>`,
        });
      });
      if (one.median) {
        values.push(...one.median.value);
        lines.push({
          ...group, x: along(one.median, x), y: one.median.value, mode: "lines+markers",
          line: { color: colour, width: 2.5, dash: data.dashes[one.dash] },
          marker: { symbol: markerOf(one), size: 7, maxdisplayed: 6, color: colour },
          hovertemplate: `${label}, median of ${one.runs}<br>%{y:.4~g} at %{x:,.4~g}<extra></extra>`,
        });
      }
    }
    const numbers = values.filter((value) => value !== null);
    const steep = !section.rising && Math.min(...numbers) > 0 && Math.max(...numbers) > 20 * Math.min(...numbers);
    const target = section.target === null ? {} : {
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: section.target, y1: section.target,
        line: { color: look.ink, width: 1, dash: "dash" } }],
      annotations: [{ xref: "paper", x: 0, y: steep ? Math.log10(section.target) : section.target, xanchor: "left",
        yanchor: "bottom", showarrow: false, text: plain(section.targetWords), font: { color: look.muted, size: 11 } }],
    };
    return [lines, layout(look, {
      height: legendRoom(430, lines, figure),
      xaxis: axis(LABELS[x], look, { rangemode: "tozero" }),
      yaxis: axis(plain(section.metric), look, { type: steep ? "log" : "linear" }),
      ...target,
    })];
  }

  // A legend below takes height from the plot unless the figure grows with it.
  function legendRoom(height, lines, figure) {
    const entries = lines.filter((line) => line.showlegend !== false);
    const width = figure.clientWidth || 700;
    const longest = Math.max(0, ...entries.map((line) => line.name.length));
    const columns = Math.max(1, Math.floor(width / (50 + 7 * longest)));
    return height + 20 * Math.ceil(entries.length / columns);
  }

  // Pareto

  function pareto(section, figure, look) {
    const y = checked(figure) || (section.pareto.some((row) => row.memory !== null) ? "memory" : "energy");
    const several = new Set(section.pareto.map((row) => row.effort)).size > 1;
    const rows = section.pareto.filter((row) => visible(nameOf(row)) && row[y] !== null);
    const ranges = [span(rows.map((row) => row.time)), span(rows.map((row) => row[y]))];
    const places = labelPlaces(rows, y, ranges, figure);
    const named = places !== null;  // at the markers where there is room, else in a legend
    const lines = rows.map((row, number) => ({
      type: "scatter", mode: named ? "markers+text" : "markers", x: [row.time], y: [row[y]],
      name: labelOf(row, several), showlegend: !named,
      text: [plain(nameOf(row))], textposition: named ? places[number] : undefined, textfont: { size: 11, color: look.muted }, cliponaxis: false,
      marker: { symbol: markerOf(row) + (row.front ? "" : "-open"), size: 10, color: colourOf(row, look), line: { width: row.front ? 0 : 1.5 } },
      hovertemplate: `${labelOf(row, true)}<br>%{x:,.4~g} s, %{y:,.4~g} ${y === "memory" ? "MiB" : "J"}` +
        `${row.front ? "<br>on the front" : ""}<extra></extra>`,
    }));
    return [lines, layout(look, {
      height: legendRoom(360, named ? [] : lines, figure),
      xaxis: axis(`median ${LABELS.time}`, look, { range: ranges[0] }), yaxis: axis(LABELS[y], look, { range: ranges[1] }),
    })];
  }

  // A difference of a thousandth must not fill the plot.
  function span(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = Math.max(0.12 * (high - low), 0.01 * high);
    return [Math.max(0, low - margin), high + margin];
  }

  // Return a place for each label where it hides no marker and no other label, or null.
  function labelPlaces(rows, y, [xs, ys], figure) {
    const [width, height] = [(figure.clientWidth || 700) - 80, 290];
    const taken = rows.map((row) => {
      const [x, top] = [(row.time - xs[0]) / (xs[1] - xs[0]) * width, (ys[1] - row[y]) / (ys[1] - ys[0]) * height];
      return [x - 6, x + 6, top - 6, top + 6];
    });
    const places = [];
    for (const [number, row] of rows.entries()) {
      const long = 6.5 * nameOf(row).length;
      const [left, right, top, bottom] = taken[number];
      const middle = (left + right) / 2;
      const boxes = {
        "top center": [middle - long / 2, middle + long / 2, top - 14, top],
        "middle right": [right, right + long, top, bottom],
        "bottom center": [middle - long / 2, middle + long / 2, bottom, bottom + 14],
        "middle left": [left - long, left, top, bottom],
      };
      const free = ([a, b, c, d]) => a >= 0 && b <= width && !taken.some(([l, r, t, u], other) =>
        other !== number && a < r && b > l && c < u && d > t);
      const place = Object.keys(boxes).find((name) => free(boxes[name]));
      if (!place) return null;
      taken.push(boxes[place]);
      places.push(place);
    }
    return places;
  }

  // Telemetry

  function telemetry(section, figure, look) {
    const select = figure.querySelector("select.run");
    if (!select.options.length) {
      section.telemetry.forEach((one, number) =>
        select.add(new Option(`${nameOf(one)}, ${one.effort}, seed ${one.seed}, ${one.outcome.replace("_", " ")}`, number)));
      select.addEventListener("change", () => draw(figure));
    }
    [...select.options].forEach((option, number) => {
      option.hidden = option.disabled = !visible(nameOf(section.telemetry[number]));
    });
    if (select.selectedOptions[0]?.disabled) {
      select.value = [...select.options].find((option) => !option.disabled)?.value ?? "";
    }
    const one = section.telemetry[select.value];
    if (!one) return [[], layout(look, { height: 120 })];
    const names = Object.keys(one.channels);
    const gap = 0.06;
    const height = (1 - gap * (names.length - 1)) / names.length;
    const axes = { xaxis: axis("wall seconds since the clock started", look, { rangemode: "tozero", anchor: `y${names.length}`, uirevision: one.run }) };
    const lines = names.map((name, number) => {
      const top = 1 - number * (height + gap);
      const channel = data.channels[name];
      axes[`yaxis${number + 1}`] = axis(`${channel.label},<br>${channel.unit}`, look, {
        domain: [Math.max(0, top - height), top], rangemode: "tozero", nticks: 5 });
      return {
        type: "scatter", mode: "lines", connectgaps: true, x: one.wall, y: one.channels[name], yaxis: `y${number + 1}`, showlegend: false,
        line: { color: colourOf(one, look), width: 1.5 }, name: channel.label,
        hovertemplate: `${channel.label} %{y:,.4~g} ${channel.unit} at %{x:,.4~g} s<extra></extra>`,
      };
    });
    return [lines, layout(look, {
      height: 85 + 130 * names.length, margin: { l: 10, r: 12, t: 34, b: 10 }, ...axes,
      title: { text: `${plain(nameOf(one))}, ${plain(one.effort)}, seed ${one.seed}`, x: 0, xref: "paper", font: { size: 12, color: look.muted } },
    })];
  }

  // Performance profiles

  function profile(one, figure, look) {
    const lines = one.series.filter((line) => visible(nameOf(line))).map((line) => ({
      type: "scatter", mode: "lines+markers", x: one.taus, y: line.shares, name: plain(line.entry),
      line: { shape: "hv", color: colourOf(line, look), width: 2 },
      marker: { symbol: markerOf(line), size: 7, maxdisplayed: 5, color: colourOf(line, look) },
      hovertemplate: `${plain(line.entry)}<br>within %{x:.3~g} × the fastest on %{y:.0%}<extra></extra>`,
    }));
    return [lines, layout(look, {
      height: legendRoom(360, lines, figure),
      xaxis: axis("τ: times the fastest one's time", look),
      yaxis: axis("share of workloads", look, { range: [0, 1.03], tickformat: ".0%" }),
    })];
  }

  // Drawing

  const builders = { curves, pareto, telemetry, profile };
  const checked = (figure) => figure.querySelector("input:checked")?.value;
  const subject = (figure) => figure.dataset.figure === "profile"
    ? data.profiles[figure.dataset.profile]
    : data.sections[figure.closest("[data-section]").dataset.section];
  const built = (figure, look) => builders[figure.dataset.figure](subject(figure), figure, look);
  const fileName = (figure) => {
    const title = subject(figure).title || "overall";
    return `${title}-${figure.dataset.figure}`.toLowerCase().replace(/[^a-z0-9]+/g, "-");
  };

  const drawn = new Set();
  function draw(figure, width) {
    const [lines, frame] = built(figure, theme(false));
    drawn.add(figure);
    return Plotly.react(figure.querySelector(".plot"), lines, { ...frame, ...(width ? { width } : { autosize: true }) },
      { responsive: !width, displayModeBar: false, doubleClickDelay: 400 });
  }
  const redraw = () => [...drawn].filter((figure) => figure.offsetParent !== null).forEach((figure) => draw(figure));

  async function save(figure, format) {
    const [lines, frame] = built(figure, theme(true));  // light: a picture goes into a paper
    await Plotly.downloadImage({ data: lines, layout: { ...frame, width: 900, autosize: false } },
      { format, filename: fileName(figure), width: 900, height: frame.height, scale: format === "png" ? 2 : 1 });
  }

  const figures = all("figure[data-figure]");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      if (!drawn.has(entry.target)) draw(entry.target);
    }
  }, { rootMargin: "600px" });
  figures.forEach((figure) => {
    seen.observe(figure);
    all("input", figure).forEach((input) => input.addEventListener("change", () => draw(figure)));
    all(".export button", figure).forEach((button) =>
      button.addEventListener("click", () => save(figure, button.dataset.format)));
  });

  // Filters

  function apply() {
    for (const part of all("[data-workload]")) {
      part.classList.toggle("hidden", Boolean(shown.workload) && part.dataset.workload !== shown.workload);
    }
    for (const row of all("tr[data-submission]")) row.classList.toggle("hidden", !visible(row.dataset.submission));
    for (const chip of all(".chip")) chip.setAttribute("aria-pressed", String(!shown.hidden.has(chip.value)));
    const chips = all(".chip").length;
    const off = all(".chip").filter((chip) => shown.hidden.has(chip.value)).length;
    document.getElementById("chosen").textContent = `(${chips - off} of ${chips})`;
    redraw();
  }
  const on = (id, event, action) =>
    document.getElementById(id)?.addEventListener(event, (fired) => { action(fired.target); apply(); });
  on("workload", "change", (select) => { shown.workload = select.value; });
  on("kind", "change", (select) => { shown.kind = select.value; });
  on("all", "click", () => shown.hidden.clear());
  on("none", "click", () => all(".chip").forEach((chip) => shown.hidden.add(chip.value)));
  all(".chip").forEach((chip) => chip.addEventListener("click", () => {
    if (!shown.hidden.delete(chip.value)) shown.hidden.add(chip.value);
    apply();
  }));
  const further = document.getElementById("further");
  if (further) {
    all(".further").forEach((item) => { item.hidden = true; });
    further.hidden = false;
    further.addEventListener("click", () => {
      all(".further").forEach((item) => { item.hidden = false; });
      further.hidden = true;
    });
  }
  document.getElementById("filters").hidden = false;
  dark.addEventListener("change", redraw);

  // Paper is white and has its own width; what is folded away on the screen is printed, but for long lists.
  const folded = new Set();
  addEventListener("beforeprint", () => {
    printing = true;
    all("main details").filter((one) => !one.open && !one.matches("form *, [data-screen]")).forEach((one) => { folded.add(one); one.open = true; });
    figures.forEach((figure) => draw(figure, 660));
  });
  addEventListener("afterprint", () => {
    printing = false;
    folded.forEach((one) => { one.open = false; });
    folded.clear();
    redraw();
  });

  apply();
})();
