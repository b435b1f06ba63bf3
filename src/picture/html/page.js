"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const picture = document.getElementById("picture");
  const told = document.getElementById("told");
  const svg = picture.querySelector("svg");
  const marks = document.createElementNS(svg.namespaceURI, "g");
  const found = document.createElementNS(svg.namespaceURI, "g");
  svg.append(found, marks);
  const HEADS = [["tensor"], ["made of"], ["part"], ["bytes", "n"], ["type and shape"], ["at", "n"]];
  let held = false;
  let at = null;

  // All text goes in as text: names in a checkpoint may hold anything.
  function make(tag, text, kind) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  }
  function grouped(number) {
    return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  }
  function size(bytes) {
    if (bytes < 1000) return bytes + " B";
    let rest = bytes;
    for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
      if (rest < 1000) return rest.toFixed(1) + " " + unit;
      rest /= 1000;
    }
    return rest.toFixed(1) + " PB";
  }
  // A lane may stand for several that look alike: `which` of them.
  function unitAt(side, lane, column, which) {
    const all = data.sides[side].lanes[lane];
    return all ? all.alike[which].find(unit => column in data.sides[side].units[unit].cells) : undefined;
  }
  function box(group, kind, side, lane, column) {
    const rect = document.createElementNS(svg.namespaceURI, "rect");
    const [left, wide] = data.places[column];
    const measures = { x: left, y: data.sides[side].lanes[lane].top, width: wide, height: data.sides[side].height };
    for (const name of Object.keys(measures)) rect.setAttribute(name, measures[name]);
    // A dark rim with a light one around it is seen on every colour.
    const rim = rect.cloneNode();
    rim.setAttribute("class", "rim");
    rect.setAttribute("class", kind);
    group.append(rim, rect);
  }
  function lanesOf(side, unit) {
    const lanes = data.sides[side].lanes;
    return lanes.map((lane, index) => (lane.alike.some(units => units.includes(unit)) ? index : -1)).filter(index => index >= 0);
  }

  function placeOf(file, offset) {
    return file + " @ " + grouped(offset);
  }
  function pieces(from, all) {
    const lines = from.map(([file, offset, run, ...loops]) => {
      if (file < 0) return "in no file: " + grouped(run) + " bytes";
      let times = "";
      const steps = [];
      for (let i = 0; i < loops.length; i += 2) {
        times += grouped(loops[i]) + " \u00d7 ";
        steps.push(grouped(loops[i + 1]));
      }
      const apart = steps.length ? ", " + steps.join(" and ") + " apart" : "";
      return placeOf(data.words[file], offset) + ": " + times + grouped(run) + " bytes" + apart;
    });
    if (all > from.length) lines.push("and " + grouped(all - from.length) + " more pieces");
    return lines;
  }
  function share(bytes, of, holders) {
    const whole = of / bytes;
    const part = of <= bytes ? "all" : Number.isInteger(whole) ? "1/" + whole : (100 / whole).toFixed(1) + " %";
    return holders > 1 ? part + ", on " + holders : part;
  }
  function table(heads, rows) {
    const around = make("div", undefined, "table");
    const all = make("table");
    const head = make("tr");
    for (const [text, kind] of heads) head.append(make("th", text, kind));
    all.append(make("thead"), make("tbody"));
    all.tHead.append(head);
    all.tBodies[0].append(...rows);
    around.append(all);
    return around;
  }
  function code(lines) {
    const cell = make("td");
    lines.forEach((line, index) => {
      if (index) cell.append(make("br"));
      cell.append(make("code", line));
    });
    return cell;
  }
  function rowOf(unit, [name, kind, file, offset, bytes, of, holders, from, count, parts]) {
    const row = make("tr");
    const all = count > 1 ? " and " + (count - 1) + " like it" : "";
    row.append(code([data.words[name] + all]), code(pieces(from, parts)), make("td", count > 1 ? "" : share(bytes, of, holders)),
      make("td", size(bytes), "n"), make("td", data.words[kind]), make("td", grouped(offset), "n"));
    row.title = placeOf(unit.files[file], offset);
    return row;
  }

  function tell(side, lane, column, which) {
    const number = unitAt(side, lane, column, which);
    marks.replaceChildren();
    told.replaceChildren();
    if (number === undefined) {
      if (column in data.places && data.sides[side].lanes[lane]) box(marks, "cursor", side, lane, column);
      told.append(make("p", "Nothing of " + data.sections[column] + " is here.", "hint"));
      return;
    }
    const units = data.sides[side].units;
    const unit = units[number];
    const [bytes, from, fill, cut, shared, tensors] = unit.cells[column];
    const alike = data.sides[side].lanes[lane].alike;
    box(marks, "cursor", side, lane, column);
    told.append(make("h2", (side ? "" : "Source, ") + unit.name + ": " + data.sections[column] + ", " + size(bytes)));
    if (alike.length > 1) told.append(chooser(side, lane, column, which));
    if (side === 0) {
      const readers = [];
      data.sides[1].units.forEach((reader, index) => {
        const cell = reader.cells[column];
        if (cell && cell[1].some(([source]) => source === number)) readers.push(index);
      });
      for (const reader of readers) for (const row of lanesOf(1, reader)) box(marks, "kin", 1, row, column);
      told.append(make("p", unit.files.join(", ")));
      const names = readers.map(reader => data.sides[1].units[reader].name);
      told.append(make("p", readers.length ? "Read by " + names.join(", ") + "." : "Read by nobody: others hold the same bytes."));
      return;
    }
    const sources = from.map(([source, part]) => {
      for (const row of lanesOf(0, source)) box(marks, "kin", 0, row, column);
      return data.sides[0].units[source].name + " (" + size(part) + ")";
    });
    if (fill) sources.push("no file (" + size(fill) + ")");
    const more = [];
    told.append(make("p", unit.files.join(", "), "dim"));
    if (cut) more.push(size(cut) + " are parts of tensors that are cut");
    if (shared) more.push(size(shared) + " are held by others too");
    told.append(make("p", "From " + sources.join(", ") + (more.length ? "; " + more.join(", ") : "") + "."));
    const by = unit.by === null ? unit : units[unit.by];
    if (by !== unit) told.append(make("p", "Tensors are those of " + by.name + ", which looks the same: offsets may differ.", "dim"));
    const rows = by.cells[column][5].map(row => rowOf(by, row));
    told.append(table(HEADS, rows));
  }

  function chooser(side, lane, column, which) {
    const label = make("label", "This lane stands for ranks that look alike. Shown is ");
    const select = make("select");
    data.sides[side].lanes[lane].alike.forEach((_, index) => {
      const unit = unitAt(side, lane, column, index);
      const option = make("option", data.sides[side].units[unit].name);
      option.value = index;
      option.selected = index === which;
      select.append(option);
    });
    select.addEventListener("change", () => {
      held = true;
      show(side, lane, column, Number(select.value));
      told.querySelector("select").focus();
    });
    label.append(select);
    return label;
  }
  function show(side, lane, column, which = 0) {
    at = { side, lane, column };
    tell(side, lane, column, which);
  }
  function pointed(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const column = data.places.findIndex(([left, wide]) => point.x >= left && point.x < left + wide);
    for (const side of [0, 1]) {
      const { lanes, height } = data.sides[side];
      const lane = lanes.findIndex(({ top }) => point.y >= top && point.y < top + height);
      if (column >= 0 && lane >= 0) return { side, lane, column };
    }
    return null;
  }
  picture.addEventListener("pointermove", event => {
    const place = held ? null : pointed(event);
    if (place && (!at || place.side !== at.side || place.lane !== at.lane || place.column !== at.column)) {
      show(place.side, place.lane, place.column);
    }
  });
  picture.addEventListener("click", event => {
    const place = pointed(event);
    held = Boolean(place);
    if (place) show(place.side, place.lane, place.column);
  });
  picture.addEventListener("focus", () => {
    if (!at) show(1, 0, 0);
  });
  picture.addEventListener("keydown", event => {
    if (event.key === "Escape") held = false;
    if (event.key === "Enter") held = true;
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (!(event.key in steps) || !at) return;
    event.preventDefault();
    const [down, right] = steps[event.key];
    const column = Math.min(Math.max(at.column + right, 0), data.places.length - 1);
    let { side, lane } = at;
    lane += down;
    if (lane < 0 && side === 1) [side, lane] = [0, data.sides[0].lanes.length - 1];
    if (lane >= data.sides[0].lanes.length && side === 0) [side, lane] = [1, 0];
    show(side, Math.min(Math.max(lane, 0), data.sides[side].lanes.length - 1), column);
  });

  function search(text) {
    const count = document.getElementById("count");
    found.replaceChildren();
    if (!text) {
      count.textContent = "";
      return;
    }
    const wanted = new Set();
    data.words.forEach((word, index) => {
      if (word.toLowerCase().includes(text.toLowerCase())) wanted.add(index);
    });
    let tensors = 0;
    const rows = [];
    data.sides[1].units.forEach((unit, number) => {
      for (const column of Object.keys(unit.cells)) {
        const hits = unit.cells[column][5].filter(([name]) => wanted.has(name));
        if (!hits.length) continue;
        tensors += hits.reduce((sum, hit) => sum + hit[8], 0);
        for (const lane of lanesOf(1, number)) box(found, "found", 1, lane, column);
        for (const hit of hits.slice(0, Math.max(0, 200 - rows.length))) {
          const row = rowOf(unit, hit);
          const where = make("td");
          const button = make("button", unit.name + ", " + data.sections[column]);
          button.type = "button";
          button.addEventListener("click", () => {
            held = true;
            const lane = lanesOf(1, number)[0];
            show(1, lane, Number(column), data.sides[1].lanes[lane].alike.findIndex(units => units.includes(number)));
            told.scrollIntoView({ block: "nearest" });
          });
          where.append(button);
          row.prepend(where);
          rows.push(row);
        }
      }
    });
    count.textContent = tensors + (tensors === 1 ? " tensor" : " tensors");
    held = true;
    marks.replaceChildren();
    told.replaceChildren(make("h2", tensors > rows.length ? "The first " + rows.length + " of " + grouped(tensors) : "Found"));
    told.append(table([["where"], ...HEADS], rows));
  }
  const name = document.getElementById("name");
  name.addEventListener("input", () => search(name.value.trim()));
  document.getElementById("search").addEventListener("submit", event => event.preventDefault());
  // A link may say what to show: #layers.3. looks for that, #=1,0,4 points at a place.
  const asked = decodeURIComponent(location.hash.slice(1));
  if (asked.startsWith("=")) {
    const [side, lane, column] = asked.slice(1).split(",").map(Number);
    if (data.sides[side] && data.sides[side].lanes[lane] && data.places[column]) {
      held = true;
      show(side, lane, column);
    }
  } else if (asked) {
    name.value = asked;
    search(asked);
  }
})();
