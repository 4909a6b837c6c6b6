// The list of photos beside the map: search, filters, and the details of the chosen photo. All text is set as text.
"use strict";

function placecacheElement(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function placecacheMetres(length) {
  if (length >= 10000) return (length / 1000).toFixed(0) + " km";
  if (length >= 1000) return (length / 1000).toFixed(1).replace(".0", "") + " km";
  return (length < 10 ? length.toFixed(1).replace(".0", "") : length.toFixed(0)) + " m";
}

function placecacheDescribe(item) {
  const parts = [];
  if (item.error_m !== null) parts.push(placecacheMetres(item.error_m) + (item.right === null ? " from its EXIF position" : " off"));
  if (item.abstained) parts.push(item.right === null ? "withheld" : "abstained");
  if (item.confidence !== null) parts.push("confidence " + item.confidence.toFixed(2));
  else if (item.score !== null) parts.push("score " + item.score.toFixed(3));
  if (!item.answer) parts.push("no answer");
  return parts.join(" \u00b7 ");
}

function placecachePicture(item, data) {
  if (item.photo !== null) return data.photos[item.photo];
  const own = item.card && document.querySelector("#" + item.card + " img");
  return own ? own.src : null;
}

// What the note below the map says of a photo: one line in a report, all that is known where photos are located.
function placecacheDetails(item, number, count, data) {
  const make = placecacheElement, words = `${number + 1} of ${count}: ${placecacheDescribe(item)} \u2014 ${item.label} `;
  if (!item.details) {
    return [make("span", {}, words), item.card ? make("a", { href: "#" + item.card }, "See its photos") : ""];
  }
  const picture = placecachePicture(item, data);
  const facts = item.details.facts.map(([name, value]) => make("tr", {}, make("td", {}, name), make("td", {}, value)));
  const places = item.details.places.map((place, rank) =>
    make("li", {},
      make("div", {}, place.geo ? make("a", { href: "geo:" + place.geo }, place.position) : place.position, ` ${place.remark}`),
      place.alike.length
        ? make("div", { class: "alike" }, ...place.alike.map((photo) => make("figure", { title: photo.key },
            photo.photo === null ? "" : make("img", { src: data.photos[photo.photo], alt: "Database photo" }),
            make("figcaption", {}, `${photo.likeness} `, make("code", {}, photo.key)))))
        : "")
  );
  return [
    make("div", { class: "detail" },
      picture ? make("img", { class: "own", src: picture, alt: "The photo" }) : "",
      make("div", {},
        make("strong", {}, `${number + 1} of ${count}: ${item.details.reason}`), make("code", {}, item.label),
        make("div", { class: "facts-table" }, make("table", {}, make("tbody", {}, ...facts))),
        make("ol", { class: "places" }, ...places))),
  ];
}

function placecacheList(root, data, map) {
  const ROW_PX = 60, items = data.items;
  const rows = root.querySelector(".list-rows"), count = root.querySelector(".list-count");
  const space = rows.firstElementChild, search = root.querySelector("input");
  const names = items.map((item) => item.label.toLowerCase());
  let order = [], chosen = -1, hovered = -1;

  const trust = (item) => (item.confidence === null ? item.score ?? -1 : item.confidence);
  const filters = {
    confidence: {
      "Any confidence": null,
      "0.9 or more": (item) => item.confidence >= 0.9,
      "0.5 to 0.9": (item) => item.confidence >= 0.5 && item.confidence < 0.9,
      "below 0.5": (item) => item.confidence !== null && item.confidence < 0.5,
      "withheld": (item) => item.abstained,
    },
    session: { "All sessions": null },
    cell: { "All cell sizes": null },
    sort: {
      "In order": null,
      "Most sure first": (a, b) => trust(items[b]) - trust(items[a]),
      "Least sure first": (a, b) => trust(items[a]) - trust(items[b]),
      "By name": (a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : 0),
    },
  };
  for (const part of ["session", "cell"])
    for (const name of [...new Set(items.map((item) => item[part]))].sort())
      if (name) filters[part][part === "cell" ? name + " cells" : name] = (item) => item[part] === name;
  const selects = {};
  for (const [name, options] of Object.entries(filters)) {
    const select = selects[name] = root.querySelector(`select[data-filter="${name}"]`);
    const known = name !== "confidence" || items.some((item) => item.confidence !== null);
    if (Object.keys(options).length < 3 || !known) { select.hidden = true; }
    select.append(...Object.keys(options).map((text) => placecacheElement("option", { value: text }, text)));
    select.addEventListener("change", apply);
  }

  function apply() {
    const wanted = search.value.trim().toLowerCase();
    const tests = ["confidence", "session", "cell"].map((name) => filters[name][selects[name].value]).filter(Boolean);
    const number = new Map(items.map((item, at) => [item, at]));
    map.filter((item) => tests.every((test) => test(item)) && (!wanted || names[number.get(item)].includes(wanted)));
    list();
  }

  function list() {
    order = items.map((_, number) => number).filter((number) => map.visible(items[number]));
    const compare = filters.sort[selects.sort.value];
    if (compare) order.sort((a, b) => compare(a, b) || a - b);
    count.textContent = order.length === items.length ? `${items.length.toLocaleString("en")} photos`
      : `${order.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} photos`;
    space.style.height = order.length * ROW_PX + "px";
    rows.scrollTop = 0;
    root.dataset.listed = String(order.length);
    draw();
  }

  // Only the rows in view exist, so that 5,000 photos are as fast as ten.
  function draw() {
    const first = Math.max(0, Math.floor(rows.scrollTop / ROW_PX) - 4);
    const last = Math.min(order.length, Math.ceil((rows.scrollTop + rows.clientHeight) / ROW_PX) + 4);
    space.replaceChildren(...order.slice(first, last).map((number, at) => row(number, first + at)));
  }

  function row(number, place) {
    const make = placecacheElement, item = items[number], picture = placecachePicture(item, data);
    const kind = item.right === null ? "unknown" : item.right ? "right" : "wrong";
    const slash = item.label.lastIndexOf("/"), share = item.confidence === null ? null : Math.round(100 * item.confidence);
    const element = make("div", {
      role: "option", id: "row-" + number, class: `row ${kind}${number === hovered ? " hovered" : ""}`, title: item.label,
      "aria-selected": String(number === chosen), "aria-setsize": order.length, "aria-posinset": place + 1,
    },
      picture ? make("img", { src: picture, alt: "", loading: "lazy" }) : make("span", { class: "none" }),
      make("span", { class: "row-name" }, item.label.slice(slash + 1)),
      make("span", { class: "row-fact" }, placecacheDescribe(item)),
      share === null ? "" : make("span", { class: "row-bar" }, make("span", {}, "")));
    if (share !== null) element.querySelector(".row-bar span").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    element.style.top = place * ROW_PX + "px";
    element.addEventListener("mouseenter", () => { map.highlight(number); mark(number); });
    element.addEventListener("click", () => map.choose(number, true));
    return element;
  }

  function mark(number) {
    hovered = number;
    for (const element of space.children) element.classList.toggle("hovered", element.id === "row-" + number);
  }

  rows.addEventListener("mouseleave", () => { map.highlight(-1); mark(-1); });
  rows.addEventListener("scroll", draw, { passive: true });
  rows.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!by || !order.length) return;
    event.preventDefault();
    map.choose(order[Math.min(order.length - 1, Math.max(0, order.indexOf(chosen) + by))], true);
  });
  search.addEventListener("input", apply);
  new ResizeObserver(draw).observe(rows);
  Object.assign(map.listeners, {
    hover: mark,
    show: list,
    order: () => order,
    choose: (number) => {
      chosen = number;
      const at = order.indexOf(number) * ROW_PX;
      if (at >= 0 && (at < rows.scrollTop || at + ROW_PX > rows.scrollTop + rows.clientHeight))
        rows.scrollTop = at - rows.clientHeight / 2 + ROW_PX / 2;
      if (number >= 0) rows.setAttribute("aria-activedescendant", "row-" + number);
      draw();
    },
  });
  apply();
}

{
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const root = document.getElementById("finder");
  placecacheList(root, data, placecacheMap(root.querySelector(".map"), data));
}
