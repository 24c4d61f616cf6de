// Draws the reports that stand in #data. No network, no storage.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const palette = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"].map(colour);
  const MOST_ROWS = 500;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const isNumber = (column) => /^(Nullable\()?(U?Int|Float|Decimal)/.test(column.type);
  const isTime = (column) => /^Date/.test(column.type);
  const words = (name) => name.replace(/_pct$/, " %").replace(/_/g, " ");
  const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
  const two = new Intl.NumberFormat("en-GB", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  // Short numbers for axes only; tables show every digit.
  const short = (value) => {
    const size = Math.abs(value);
    if (size >= 1e6) return two.format(value / 1e6).replace(/\.?0+$/, "") + " M";
    if (size >= 1e4) return whole.format(value / 1e3) + " k";
    return String(Math.round(value * 100) / 100);
  };
  // Decimals come as texts: grouped without passing through a float.
  const shown = (value, column) => {
    if (value === null) return "";
    if (/^Decimal/.test(column.type)) {
      const [sign, digits, rest] = String(value).match(/^(-?)(\d+)(?:\.(\d+))?$/)?.slice(1) ?? ["", String(value), ""];
      const grouped = digits.replace(/\B(?=(\d{3})+$)/g, ",");
      return sign + grouped + "." + (rest ?? "").padEnd(2, "0");
    }
    if (isNumber(column)) return Number(value).toLocaleString("en-GB", { maximumFractionDigits: 4 });
    if (/^DateTime64/.test(column.type)) return String(value).replace(/\.\d+$/, "");
    return String(value);
  };

  const table = (report) => {
    const scroll = element("div", undefined, "scroll");
    scroll.tabIndex = 0;
    const made = scroll.appendChild(element("table"));
    const head = made.createTHead().insertRow();
    for (const column of report.columns) {
      const cell = head.appendChild(element("th", words(column.name), isNumber(column) ? "number" : ""));
      cell.scope = "col";
    }
    const body = made.createTBody();
    for (const row of report.rows.slice(0, MOST_ROWS)) {
      const line = body.insertRow();
      row.forEach((value, at) => {
        const text = shown(value, report.columns[at]);
        const kind = isNumber(report.columns[at]) ? "number" : text.length > 40 ? "long" : "";
        line.appendChild(element("td", text, kind));
      });
    }
    return scroll;
  };

  const option = (report, rows) => {
    const { kind, x, y, stack, log } = report.chart;
    const at = (name) => report.columns.findIndex((column) => column.name === name);
    const time = isTime(report.columns[at(x)]);
    const taken = report.chart.top ? rows.slice(0, report.chart.top) : rows;
    const labels = taken.map((row) => String(row[at(x)]).replace(/:00(\.\d+)?$/, ""));
    const many = labels.length > 40;
    const soft = colour("--soft"), line = colour("--line");
    // A logarithmic axis has no zero: its bars stand on the decade below the smallest.
    const positive = taken.flatMap((row) => y.map((name) => Number(row[at(name)]))).filter((value) => value > 0);
    const floor = log && positive.length ? 10 ** Math.floor(Math.log10(Math.min(...positive))) : undefined;
    const font = { color: soft, fontSize: 12 };
    return {
      color: palette,
      animation: false,
      textStyle: { fontFamily: style.fontFamily || "sans-serif" },
      grid: { left: 12, right: 18, top: y.length > 1 ? 40 : 18, bottom: many ? 52 : 8, containLabel: true },
      legend: y.length > 1 ? { top: 6, left: 8, itemWidth: 14, itemHeight: 9, textStyle: font } : undefined,
      tooltip: { trigger: "axis", axisPointer: { type: kind === "bar" ? "shadow" : "line" }, valueFormatter: (v) => (v === undefined ? "" : two.format(v).replace(/\.00$/, "")) },
      dataZoom: many ? [{ type: "slider", height: 20, bottom: 12, borderColor: line, textStyle: font }, { type: "inside" }] : undefined,
      xAxis: {
        type: "category", data: labels, axisTick: { show: false }, axisLine: { lineStyle: { color: line } },
        axisLabel: { ...font, hideOverlap: true, alignMinLabel: time ? "left" : undefined, alignMaxLabel: time ? "right" : undefined, interval: many || time ? "auto" : 0, rotate: !time && labels.length > 12 ? 40 : 0 },
      },
      yAxis: {
        type: log ? "log" : "value", min: floor, startValue: floor, axisLabel: { ...font, formatter: short },
        splitLine: { lineStyle: { color: line } },
      },
      series: y.map((name) => ({
        name: words(name), type: kind, stack: stack ? "all" : undefined, showSymbol: false, barMaxWidth: 46, large: many && kind === "bar" && !stack,
        data: taken.map((row) => { const value = Number(row[at(name)]); return log && value <= 0 ? null : value; }),
      })),
    };
  };

  const charts = [];
  const draw = (report, place) => {
    const { group } = report.chart;
    const at = report.columns.findIndex((column) => column.name === group);
    const groups = at < 0 ? [""] : [...new Set(report.rows.map((row) => row[at]))];
    for (const name of groups) {
      if (groups.length > 1 || name) place.append(element("h3", name));
      const box = place.appendChild(element("div", undefined, "chart"));
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${report.title} ${name}: chart of the table below`);
      const chart = echarts.init(box, null, { renderer: "svg" });
      chart.setOption(option(report, at < 0 ? report.rows : report.rows.filter((row) => row[at] === name)));
      charts.push(chart);
    }
  };

  const { from, to, merchant } = data.period;
  const open = from === "1970-01-01" && to === "2149-06-06";
  const period = open ? "All days" : `${from === "1970-01-01" ? "Until" : from + " to"} ${to === "2149-06-06" ? "today" : to}`;
  document.getElementById("period").textContent = `${period} · ${merchant ? "merchant " + merchant : "all merchants"}`;

  for (const report of data.reports) {
    const link = element("a", report.title);
    link.href = "#" + report.name;
    document.getElementById("contents").append(link);
    const section = element("section");
    section.id = report.name;
    section.append(element("h2", report.title));
    section.append(element("p", report.data_as_of ? `Data as of ${report.data_as_of.replace(/\.\d+$/, "")} UTC` : "No data", "asof"));
    document.getElementById("reports").append(section);
    if (report.rows.length && report.chart) draw(report, section);
    if (report.rows.length) section.append(table(report));
    else section.append(element("p", "Nothing in this period.", "empty"));
    if (report.rows.length > MOST_ROWS) {
      section.append(element("p", `The first ${MOST_ROWS} of ${whole.format(report.rows.length)} rows; all of them: tillroll report ${report.name} --format csv`, "more"));
    }
    const details = section.appendChild(element("details"));
    details.append(element("summary", "What these figures mean"));
    // Lines of the file are no lines of the page.
    details.append(element("p", report.definition.replace(/([^\n])\n(?!\n)/g, "$1 "), "definition"));
  }
  window.addEventListener("resize", () => charts.forEach((chart) => chart.resize()));
  document.body.dataset.drawn = String(charts.length);
})();
