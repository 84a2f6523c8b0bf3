// SPDX-License-Identifier: BSD-2-Clause

//! The drawing as a picture that a browser shows: the device above, its components below, and
//! bands that join what belongs together.

use std::fmt::Write as _;

use dm_core::refusal::Shown;

use super::text::size;
use super::{Mapped, Paper, Reach};

/// The picture's least and largest width, and its width for each line in between: a browser scrolls, and a number
/// that stands upright is seen.
const WIDTH: (f64, f64) = (1200.0, 12_000.0);
const EACH: f64 = 10.0;
/// The margin at the picture's sides.
const MARGIN: f64 = 20.0;
/// The height of a bar, and the gap between the device and its components.
const BAR: f64 = 36.0;
const GAP: f64 = 190.0;
/// The height of a component's row: its name, its bar, and some room.
const ROW: f64 = 92.0;
/// The least width at which a line is seen.
const SEEN: f64 = 0.75;
/// The least width of a line that has a number in it, and of one that has it upright.
const NUMBERED: f64 = 26.0;
const UPRIGHT: f64 = 8.0;

const COLOURS: [&str; 8] =
    ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#edc948", "#9c755f"];

fn colour(number: usize) -> &'static str {
    COLOURS.get(number % COLOURS.len()).copied().unwrap_or("#888888")
}

fn escape(text: &str) -> String {
    let shown = Shown(text).to_string();
    shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The scale of a bar: the place of each sector on it.
struct Scale {
    sectors: u64,
    width: f64,
}

impl Scale {
    /// The left edge of `start`, and a width in which `length` sectors are seen.
    fn place(&self, start: u64, length: u64) -> (f64, f64) {
        let each = self.width / self.sectors.max(1) as f64;
        let width = (length as f64 * each).max(SEEN);
        let left = (start as f64 * each).min(self.width - width).max(0.0);
        (MARGIN + left, width)
    }
}

impl Mapped {
    /// The picture of a table.
    pub fn svg(&self) -> String {
        let reaches = self.reaches();
        let components = self.table.components();
        let largest = components.iter().map(|component| component.size.0).max().unwrap_or(0);
        let total = self.table.size().0;
        let wide = (self.table.len() as f64 * EACH + 2.0 * MARGIN).clamp(WIDTH.0, WIDTH.1);
        let device = Scale { sectors: total, width: wide - 2.0 * MARGIN };
        let top = 70.0;
        let rows = |at: usize| top + BAR + GAP + at as f64 * ROW;
        let height = rows(components.len()) + MARGIN;
        let scales: Vec<_> =
            components.iter().map(|component| scale(component, largest, device.width)).collect();
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {height}\" \
             width=\"{wide}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <title>A table of {} lines</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{MARGIN}\" y=\"30\" font-size=\"17\" font-weight=\"bold\">the device: {} \
             lines, {total} sectors ({})</text>\n\
             <text x=\"{MARGIN}\" y=\"52\" fill=\"#555\">0</text>\n\
             <text x=\"{}\" y=\"52\" fill=\"#555\" text-anchor=\"end\">{}</text>\n",
            self.table.len(),
            self.table.len(),
            size(total),
            wide - MARGIN,
            total.saturating_sub(1),
        );
        for (at, (component, scale)) in components.iter().zip(&scales).enumerate() {
            row(&mut out, component, scale, rows(at));
        }
        let mut bars = String::new();
        for (((range, target), reaches), number) in
            self.table.lines().zip(&reaches).zip(&self.numbers)
        {
            let (left, width) = device.place(range.start.0, range.length.0);
            let kind = target.kind().name;
            let about =
                format!("line {number}: {kind}, sectors {} to {}", range.start, range.last());
            let fill = if reaches.is_empty() { "#bbbbbb" } else { colour(*number) };
            let joins = Joins { number: *number, about: &about, fill, left, width, top };
            bar(&mut bars, &joins, left, width, top, Some(kind));
            for reach in reaches {
                let Some(scale) = scales.get(reach.component) else { continue };
                let name = self.component(reach.component);
                band(&mut out, &mut bars, &joins, reach, scale, name, rows(reach.component));
            }
        }
        out.push_str(&bars);
        out.push_str("</svg>\n");
        out
    }
}

/// Components are drawn to one scale, but none so small that it is not seen.
fn scale(component: &Paper, largest: u64, full: f64) -> Scale {
    let part = component.size.0 as f64 / largest.max(1) as f64;
    let width = (full * part).max(120.0);
    Scale { sectors: component.size.0, width }
}

fn row(out: &mut String, component: &Paper, scale: &Scale, top: f64) {
    let sectors = component.size.0;
    let read_only = if component.writable { "" } else { ", takes no writes" };
    let _ = writeln!(
        out,
        "<rect x=\"{MARGIN}\" y=\"{top:.1}\" width=\"{:.2}\" height=\"{BAR}\" fill=\"#f0f0f0\" \
         stroke=\"#888\"/>\n<text x=\"{MARGIN}\" y=\"{:.1}\"><tspan font-weight=\"bold\">{}\
         </tspan> {sectors} sectors ({}){read_only}</text>",
        scale.width,
        top + BAR + 18.0,
        escape(&component.name),
        size(sectors),
    );
}

/// A line's part of the device's bar, from which bands go down.
struct Joins<'a> {
    number: usize,
    about: &'a str,
    fill: &'a str,
    left: f64,
    width: f64,
    top: f64,
}

fn bar(out: &mut String, line: &Joins<'_>, left: f64, width: f64, top: f64, kind: Option<&str>) {
    // Borders would hide what is narrower than they are.
    let border = if width >= 4.0 { " stroke=\"white\" stroke-width=\"1\"" } else { "" };
    let _ = writeln!(
        out,
        "<rect x=\"{left:.2}\" y=\"{top:.1}\" width=\"{width:.2}\" height=\"{BAR}\" \
         fill=\"{}\"{border}><title>{}</title></rect>",
        line.fill,
        escape(line.about)
    );
    if width >= NUMBERED {
        let text = match kind.filter(|_| width >= 90.0) {
            Some(kind) => format!("{}: {}", line.number, escape(kind)),
            None => line.number.to_string(),
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.2}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"white\" \
             pointer-events=\"none\">{text}</text>",
            left + width / 2.0,
            top + BAR / 2.0 + 5.0
        );
    } else if width >= UPRIGHT {
        let (x, y) = (left + width / 2.0 + 3.0, top + BAR - 3.0);
        let _ = writeln!(
            out,
            "<text x=\"{x:.2}\" y=\"{y:.1}\" font-size=\"9\" fill=\"white\" \
             transform=\"rotate(-90 {x:.2} {y:.1})\" pointer-events=\"none\">{}</text>",
            line.number
        );
    }
}

/// The band from a line down to a range of a component, and the range.
fn band(
    out: &mut String,
    bars: &mut String,
    line: &Joins<'_>,
    reach: &Reach,
    scale: &Scale,
    name: &str,
    top: f64,
) {
    let (left, width) = scale.place(reach.start, reach.length);
    let about = format!("{} go to {name}, sectors {} to {}", line.about, reach.start, reach.last());
    let (from, to) = (line.top + BAR, top);
    let middle = (from + to) / 2.0;
    let (l1, r1, l2, r2) = (line.left, line.left + line.width, left, left + width);
    let _ = writeln!(
        out,
        "<path d=\"M{l1:.2},{from:.1} C{l1:.2},{middle:.1} {l2:.2},{middle:.1} {l2:.2},{to:.1} \
         L{r2:.2},{to:.1} C{r2:.2},{middle:.1} {r1:.2},{middle:.1} {r1:.2},{from:.1} Z\" \
         fill=\"{}\" fill-opacity=\"0.28\"><title>{}</title></path>",
        line.fill,
        escape(&about)
    );
    let shown = Joins { about: &about, ..*line };
    bar(bars, &shown, left, width, top, None);
}
