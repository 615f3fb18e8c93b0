// SPDX-License-Identifier: Apache-2.0
// Curves as SVG that needs nothing but itself.
#include <algorithm>
#include <array>
#include <charconv>

#include "inspect/page.hpp"
#include "train/plot.hpp"

namespace multihead {

namespace {

constexpr double kWidth = 720, kHeight = 400, kLeft = 64, kRight = 150, kTop = 40, kBottom = 52;
// Told apart by most eyes, also by those that see few colours (Okabe and Ito 2008), and by dashes beyond.
constexpr std::array<const char*, 7> kColors{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                             "#e69f00", "#56b4e9", "#555555"};
constexpr std::array<const char*, 3> kDashes{"", "6 3", "2 3"};

std::string number(double value) {
  char text[64];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, 1).ptr};
}

std::string text_at(double x, double y, const char* more, const std::string& text) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\"" + more + ">" + html_text(text) + "</text>\n";
}

struct Frame {
  PlotRanges ranges;

  double x(double value) const { return kLeft + ranges.x.share(value) * (kWidth - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - ranges.y.share(value) * (kHeight - kTop - kBottom); }
};

std::string axes(const Frame& frame) {
  std::string svg;
  for (const double tick : ticks(frame.ranges.y, 5)) {
    const std::string y = number(frame.y(tick));
    svg += "<path class=\"grid\" d=\"M" + number(kLeft) + " " + y + "H" + number(kWidth - kRight) + "\"/>\n" +
           text_at(kLeft - 8, frame.y(tick) + 4, " text-anchor=\"end\"", tick_text(tick));
  }
  for (const double tick : ticks(frame.ranges.x, 6)) {
    svg += "<path class=\"axis\" d=\"M" + number(frame.x(tick)) + " " + number(kHeight - kBottom) + "v5\"/>\n" +
           text_at(frame.x(tick), kHeight - kBottom + 20, " text-anchor=\"middle\"", tick_text(tick));
  }
  return svg + "<path class=\"axis\" d=\"M" + number(kLeft) + " " + number(kTop) + "V" + number(kHeight - kBottom) +
         "H" + number(kWidth - kRight) + "\"/>\n";
}

// A line through the points, broken where one is not shown; a single point as a dot.
std::string path_of(const Frame& frame, const Curve& curve) {
  std::string path;
  bool pen = false;
  for (const auto& point : curve.points) {
    const bool shown = is_shown(point);
    if (shown)
      path +=
          (pen ? "L" : "M") + number(frame.x(point.first)) + " " + number(frame.y(point.second)) + (pen ? "" : "h0");
    pen = shown;
  }
  return path;
}

}  // namespace

std::string plot_svg(const std::string& title, const std::string& x, const std::string& y,
                     std::span<const Curve> curves) {
  const Frame frame{plot_ranges(curves)};
  const double legend = kTop + 20.0 * static_cast<double>(curves.size());
  const std::string size = number(kWidth) + "\" height=\"" + number(std::max(kHeight, legend));
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"" + size + "\" viewBox=\"0 0 " +
                    number(kWidth) + " " + number(std::max(kHeight, legend)) +
                    "\">\n<style>text{font:13px system-ui,sans-serif;fill:#222}.title{font-size:15px;font-weight:600}"
                    ".axis{stroke:#444;fill:none}.grid{stroke:#ddd;fill:none}"
                    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}</style>\n<title>" +
                    html_text(title) + "</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n" +
                    text_at(kLeft, 24, " class=\"title\"", title) + axes(frame) +
                    text_at((kLeft + kWidth - kRight) / 2, kHeight - 12, " text-anchor=\"middle\"", x) +
                    "<g transform=\"rotate(-90)\">" +
                    text_at(-(kTop + kHeight - kBottom) / 2, 16, " text-anchor=\"middle\"", y) + "</g>\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const std::string style = std::string(" class=\"line\" stroke=\"") + kColors[i % kColors.size()] +
                              "\" stroke-dasharray=\"" + kDashes[i / kColors.size() % kDashes.size()] + "\"/>\n";
    const double at = kTop + 8 + 20 * static_cast<double>(i);
    svg.append("<path d=\"").append(path_of(frame, curves[i])).append("\"").append(style);
    svg.append("<path d=\"M").append(number(kWidth - kRight + 12)).append(" ").append(number(at)).append("h20\"");
    svg.append(style).append(text_at(kWidth - kRight + 38, at + 4, "", curves[i].name));
  }
  return svg + "</svg>\n";
}

}  // namespace multihead
