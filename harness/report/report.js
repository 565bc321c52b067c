"use strict";
(() => {
  const compare = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;

  const columnOf = (table, key) =>
    [...table.querySelectorAll("thead th")].findIndex((head) => head.dataset.key === key);

  const keyOf = (cell) => {
    if (cell.dataset.sort !== undefined) return cell.dataset.sort;
    const own = [...cell.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const text = own.map((node) => node.data).join("").trim();
    return text === "" || text === "–" ? undefined : text;
  };

  const sortedBy = (rows, column, numeric, sign) => {
    const keyed = rows.map((row, index) => [keyOf(row.cells[column]), index, row]);
    const order = (a, b) => {
      if (a[0] === undefined || b[0] === undefined) {
        return (a[0] === undefined) - (b[0] === undefined) || a[1] - b[1];
      }
      const difference = numeric ? Number(a[0]) - Number(b[0]) : compare(a[0], b[0]);
      return sign * difference || a[1] - b[1];
    };
    return keyed.sort(order).map((item) => item[2]);
  };

  const sort = (table, key, direction) => {
    const column = columnOf(table, key);
    if (column < 0) return false;
    const heads = [...table.querySelectorAll("thead th")];
    const numeric = heads[column].classList.contains("num");
    const body = table.tBodies[0];
    const sign = direction === "descending" ? -1 : 1;
    body.append(...sortedBy(original.get(table), column, numeric, sign));
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", direction);
    return true;
  };

  const filter = (table, text, output) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
      if (!row.hidden) shown += 1;
    }
    output.value = `${shown} of ${table.tBodies[0].rows.length} rows`;
  };

  const wanted = () => new URLSearchParams(location.hash.slice(1));

  const remember = (changes) => {
    const state = wanted();
    for (const key of [...state.keys()]) if (key !== "sort" && key !== "filter") state.delete(key);
    for (const [key, value] of Object.entries(changes)) {
      if (value) state.set(key, value);
      else state.delete(key);
    }
    const hash = state.toString();
    try {
      history.replaceState(null, "", hash ? `#${hash}` : location.pathname);
    } catch {
      // Some browsers forbid this for files; the view changes all the same.
    }
  };

  const sortable = (table, main) => {
    for (const head of table.querySelectorAll("thead th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Sort by ${head.textContent.trim().replace(/\s+/g, " ")}`);
      (head.querySelector(".unit") ?? head.querySelector(".head")).append(" ", button);
      head.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "ascending";
        sort(table, head.dataset.key, up ? "descending" : "ascending");
        if (main) remember({ sort: (up ? "-" : "") + head.dataset.key });
      });
    }
  };

  const filterable = (table) => {
    const controls = document.createElement("div");
    controls.className = "controls";
    const label = document.createElement("label");
    label.htmlFor = "filter";
    label.textContent = "Filter rows";
    const input = document.createElement("input");
    input.type = "search";
    input.id = "filter";
    input.placeholder = "for example: int8 ort";
    const output = document.createElement("output");
    output.htmlFor = "filter";
    controls.append(label, input, output);
    table.parentElement.before(controls);
    input.addEventListener("input", () => {
      filter(table, input.value, output);
      remember({ filter: input.value });
    });
    return { input, output };
  };

  const tables = [...document.querySelectorAll("table.data")].filter((table) => table.tHead);
  const original = new Map(tables.map((table) => [table, [...table.tBodies[0].rows]]));
  const results = tables.find((table) => table.dataset.key === "results");
  for (const table of tables) sortable(table, table === results);

  if (results) {
    const { input, output } = filterable(results);
    const follow = () => {
      const state = wanted();
      const key = state.get("sort");
      if (key) sort(results, key.replace(/^-/, ""), key.startsWith("-") ? "descending" : "ascending");
      const target = document.getElementById(location.hash.slice(1));
      if (key || state.has("filter")) input.value = state.get("filter") ?? "";
      else if (target?.hidden) input.value = "";
      filter(results, input.value, output);
      if (target?.matches("tr")) target.scrollIntoView({ block: "center" });
    };
    follow();
    addEventListener("hashchange", follow);
  }

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const item of opened) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });
})();
