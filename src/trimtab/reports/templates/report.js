"use strict";
(() => {
  const root = document.documentElement;
  const element = (id) => document.getElementById(id);

  // Light and dark: the system's choice until the reader makes one.
  const button = element("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  button.hidden = false;
  name();

  // Tables that sort by the column whose head is chosen; what is unavailable stays at the end.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const sort = document.createElement("button");
      sort.type = "button";
      sort.append(...head.childNodes);
      head.append(sort);
      sort.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
        const numeric = head.classList.contains("num");
        const compare = (a, b) => {
          if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
          const order = numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
          return down ? -order : order;
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  const source = element("points");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const live = element("live");
  const W = 1000, H = 470, LEFT = 66, RIGHT = 24, TOP = 18, BOTTOM = 52;
  const axes = new Map(data.axes.map((axis) => [axis.name, axis]));
  const chosen = { across: element("across"), up: element("up") };

  for (const [id, start] of [["across", data.x], ["up", data.y]]) {
    for (const axis of data.axes) {
      const option = document.createElement("option");
      option.value = axis.name;
      option.textContent = axis.label;
      chosen[id].append(option);
    }
    chosen[id].value = start;
    chosen[id].addEventListener("change", draw);
  }
  element("axes").hidden = live.hidden = false;
  element("static").hidden = true;

  function node(tag, attributes, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  }

  // Round steps (1, 2 or 5 times a power of ten) that give about `wanted` of them.
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((n) => n * power >= rough) || 10);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) {
      const value = n === 0 ? 0 : n * step; // never "-0"
      found.push([value, value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })]);
    }
    return found;
  }

  function outline(shape, size) {
    const s = size;
    return {
      circle: `M${-s} 0a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`,
      square: `M${-s * 0.9} ${-s * 0.9}h${1.8 * s}v${1.8 * s}h${-1.8 * s}z`,
      diamond: `M0 ${-1.25 * s}L${1.25 * s} 0L0 ${1.25 * s}L${-1.25 * s} 0z`,
      triangle: `M0 ${-1.1 * s}L${1.1 * s} ${0.85 * s}H${-1.1 * s}z`,
      cross: `M${-s} ${-s}L${s} ${s}M${s} ${-s}L${-s} ${s}`,
    }[shape];
  }

  function front(points, x, y) {
    const turned = points.map((p) => [p.values[x.name][0] * (x.better === "higher" ? 1 : -1), p.values[y.name][0] * (y.better === "higher" ? 1 : -1)]);
    return points.filter((_, i) => !turned.some((q) => q[0] >= turned[i][0] && q[1] >= turned[i][1] && (q[0] > turned[i][0] || q[1] > turned[i][1])))
      .sort((a, b) => a.values[x.name][0] - b.values[x.name][0] || a.values[y.name][0] - b.values[y.name][0]);
  }

  function draw() {
    const x = axes.get(chosen.across.value), y = axes.get(chosen.up.value);
    const points = data.points.filter((point) => [x, y].every((axis) => point.values[axis.name] && point.values[axis.name][0] !== null))
      .sort((a, b) => a.values[x.name][0] - b.values[x.name][0]);
    live.replaceChildren();
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${y.label} over ${x.label}, ${points.length} variants; arrow keys move between them` }, live);
    const limits = data.limit && data.limit.axis === y.name ? [data.limit.value] : [];
    const [[x0, x1], [y0, y1]] = [x, y].map((axis) => axis.ends.map((end) => end / axis.factor));
    const across = (value) => LEFT + (value / x.factor - x0) / (x1 - x0) * (W - LEFT - RIGHT);
    const up = (value) => H - BOTTOM - (value / y.factor - y0) / (y1 - y0) * (H - TOP - BOTTOM);

    for (const [value, text] of ticks(x0, x1, 7)) {
      const at = across(value * x.factor);
      node("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: H - BOTTOM }, svg);
      node("text", { x: at, y: H - BOTTOM + 19, "text-anchor": "middle" }, svg).textContent = text;
    }
    for (const [value, text] of ticks(y0, y1, 6)) {
      const at = up(value * y.factor);
      node("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: at, y2: at }, svg);
      node("text", { x: LEFT - 8, y: at + 4, "text-anchor": "end" }, svg).textContent = text;
    }
    node("text", { x: (LEFT + W - RIGHT) / 2, y: H - 10, "text-anchor": "middle" }, svg).textContent = x.title;
    node("text", { transform: `translate(15 ${(TOP + H - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = y.title;
    for (const value of limits) {
      node("line", { class: "limit", x1: LEFT, x2: W - RIGHT, y1: up(value), y2: up(value) }, svg);
      node("text", { class: "limit-name", x: W - RIGHT - 4, y: up(value) - 6, "text-anchor": "end" }, svg).textContent = "the goal allows no less";
    }

    const best = front(points, x, y).map((point) => [across(point.values[x.name][0]), up(point.values[y.name][0])]);
    const worst = y.better === "lower" ? TOP : H - BOTTOM;
    const path = !best.length ? "" : x.better === "lower"
      ? `M${best[0][0]} ${worst}${best.map(([px, py]) => `H${px}V${py}`).join("")}H${W - RIGHT}`
      : `M${LEFT} ${best[0][1]}${best.map(([px, py]) => `V${py}H${px}`).join("")}V${worst}`;
    node("path", { class: "front", d: path }, svg);

    const taken = points.map((point) => {
      const px = across(point.values[x.name][0]), py = up(point.values[y.name][0]);
      return [px - 11, py - 11, px + 11, py + 11];
    });
    const drawn = points.map((point) => mark(svg, point, x, y, across, up));
    for (const point of points.filter((p) => p.main).sort((a, b) => b.won - a.won)) label(svg, point, across(point.values[x.name][0]), up(point.values[y.name][0]), taken);
    steer(drawn, points, x, y);
    const missing = data.points.length - points.length;
    if (missing) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = missing === 1 ? "One variant lacks one of these two readings and is not drawn." : `${missing} variants lack one of these two readings and are not drawn.`;
      live.append(note);
    }
  }

  // A whisker; where the axis ends before it does, an arrow says that it goes on.
  function whisker(group, line, [start, end], [first, last], at) {
    const a = Math.max(start, first), b = Math.min(end, last);
    let d = `M${at(a, 0)}L${at(b, 0)}`;
    if (start < first) d += `M${at(a + 8, -5)}L${at(a, 0)}L${at(a + 8, 5)}`;
    if (end > last) d += `M${at(b - 8, -5)}L${at(b, 0)}L${at(b - 8, 5)}`;
    node("path", { ...line, d }, group);
  }

  function mark(svg, point, x, y, across, up) {
    const [vx, lx, hx] = point.values[x.name], [vy, ly, hy] = point.values[y.name];
    const px = across(vx), py = up(vy);
    const group = node("g", { class: "point", tabindex: "-1", role: "img", "aria-label": `${point.name}${point.note ? ` (${point.note})` : ""}: ${x.label} ${point.texts[x.name]}, ${y.label} ${point.texts[y.name]}` }, svg);
    const line = { fill: "none", stroke: point.colour, "stroke-width": 1.8, "stroke-opacity": point.main ? 0.75 : 0.6 };
    if (lx !== null && hx !== null) whisker(group, line, [across(lx), across(hx)], [LEFT, W - RIGHT], (along, off) => `${along} ${py + off}`);
    if (ly !== null && hy !== null) whisker(group, line, [up(hy), up(ly)], [TOP, H - BOTTOM], (along, off) => `${px + off} ${along}`);
    const place = { transform: `translate(${px} ${py})` };
    node("circle", { class: "halo", cx: px, cy: py, r: 13 }, group);
    const fill = point.shape === "cross" ? "none" : point.final ? point.colour : "var(--paper)";
    node("path", { d: outline(point.shape, point.won ? 8 : point.main ? 6.5 : 5), fill, stroke: point.colour, "stroke-width": point.shape === "cross" ? 2.4 : 1.8, ...place }, group);
    return { group, px, py };
  }

  // A name goes to the first place beside its point where it covers no point and no other name.
  function label(svg, point, px, py, taken) {
    const wide = point.name.length * 7.2;
    const places = [[14, -10, "start"], [14, 20, "start"], [-14, -10, "end"], [-14, 20, "end"], [0, -20, "middle"], [0, 30, "middle"], [14, 38, "start"], [14, -28, "start"], [-14, 38, "end"], [-14, -28, "end"]];
    const box = ([dx, dy, anchor]) => {
      const left = px + dx - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
      return [left, py + dy - 12, left + wide, py + dy + 4];
    };
    const free = (b) => b[0] > LEFT && b[2] < W - 4 && b[1] > 0 && b[3] < H - BOTTOM && !taken.some((t) => b[0] < t[2] && t[0] < b[2] && b[1] < t[3] && t[1] < b[3]);
    const place = places.find((candidate) => free(box(candidate)));
    if (!place) return;
    taken.push(box(place));
    node("text", { class: "name", x: px + place[0], y: py + place[1], "text-anchor": place[2] }, svg).textContent = point.name;
  }

  function steer(drawn, points, x, y) {
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    live.append(tip);
    const show = (i) => {
      const point = points[i], { px, py } = drawn[i];
      tip.replaceChildren();
      const title = document.createElement("b");
      title.textContent = point.name + (point.note ? ` (${point.note})` : "");
      const table = document.createElement("table");
      const names = [x.name, y.name, ...data.axes.map((axis) => axis.name).filter((n) => n !== x.name && n !== y.name)];
      for (const n of new Set(names)) {
        if (!point.texts[n]) continue;
        const row = table.insertRow();
        row.className = n === x.name || n === y.name ? "axis" : "";
        row.insertCell().textContent = axes.get(n).label;
        row.insertCell().textContent = point.texts[n];
      }
      tip.append(title, table);
      tip.hidden = false;
      const scale = live.firstElementChild.getBoundingClientRect().width / W;
      const left = px * scale + 18 + tip.offsetWidth > live.clientWidth ? px * scale - 18 - tip.offsetWidth : px * scale + 18;
      tip.style.left = `${Math.max(0, left)}px`;
      tip.style.top = `${Math.max(0, Math.min(py * scale - 20, live.clientHeight - tip.offsetHeight))}px`;
    };
    drawn.forEach(({ group }, i) => {
      group.addEventListener("mouseenter", () => show(i));
      group.addEventListener("mouseleave", () => { tip.hidden = true; });
      group.addEventListener("focus", () => show(i));
      group.addEventListener("blur", () => { tip.hidden = true; });
      group.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") tip.hidden = true;
        if (!step) return;
        event.preventDefault();
        const next = drawn[(i + step + drawn.length) % drawn.length].group;
        group.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    });
    if (drawn.length) drawn[0].group.setAttribute("tabindex", "0");
  }

  draw();
})();
