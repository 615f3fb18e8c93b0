// SPDX-License-Identifier: Apache-2.0
// Curves as text and as SVG: where points stand, what is left out, and names that are hostile.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "multihead/training.hpp"
#include "train/plot.hpp"

namespace multihead {
namespace {

TEST(PlotText, ALineFromCornerToCorner) {
  const std::vector<Curve> curves{{"up", {{0, 0}, {80, 8}}}, {"level", {{0, 2}, {80, 2}}}};
  const std::vector<std::string> lines = plot_text(curves, 24);
  ASSERT_EQ(lines.size(), 12u);
  EXPECT_EQ(lines[0], "8 |                   **");
  EXPECT_EQ(lines[4], "4 |         ***");
  EXPECT_EQ(lines[6], "  |+++++++++++++++++++++");
  EXPECT_EQ(lines[8], "0 |**");
  EXPECT_EQ(lines[9], "  +---------------------");
  EXPECT_EQ(lines[10], "   0                  80");
  EXPECT_EQ(lines[11], "   * up   + level");
  for (const std::string& line : lines) EXPECT_LE(line.size(), 24u);
}

TEST(PlotText, WhatIsNotFiniteBreaksTheLine) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const std::vector<Curve> curves{{"a", {{0, 1}, {10, nan}, {20, infinity}, {30, 1}, {40, 3}}}};
  const std::vector<std::string> lines = plot_text(curves, 44);
  EXPECT_EQ(lines[0].substr(0, 3), "3 |");
  EXPECT_EQ(std::count(lines[8].begin(), lines[8].end(), '*'), 2);  // the first point alone, and where it goes on
  EXPECT_EQ(plot_text({}, 1).size(), 12u);
  EXPECT_EQ(plot_text(std::vector<Curve>{{"one", {{5, 5}}}}, 30).size(), 12u);
}

TEST(Ticks, AreRound) {
  EXPECT_EQ(ticks({0, 1}, 5), (std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}));
  EXPECT_EQ(ticks({0, 1500}, 6), (std::vector<double>{0, 500, 1000, 1500}));
  EXPECT_EQ(ticks({-3, 4}, 4), (std::vector<double>{-2, 0, 2, 4}));
  EXPECT_EQ(tick_text(0.6000000000000001), "0.6");
  EXPECT_EQ(tick_text(1500), "1500");
}

TEST(PlotSvg, IsWholeAndHarmless) {
  std::vector<Curve> curves{{"<script>&", {{0, 1}, {1, std::nan("")}, {2, 3}, {3, 2}}}};
  for (int i = 0; i < 30; ++i) curves.push_back({"curve " + std::to_string(i), {{0, 0}, {1, 1}}});
  const std::string svg = plot_svg("loss <of> it", "step", "loss", curves);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_NE(svg.find("&lt;script&gt;&amp;"), std::string::npos);
  EXPECT_NE(svg.find("loss &lt;of&gt; it"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(svg.find("height=\"660.0\""), std::string::npos);  // room for every name
  EXPECT_TRUE(plot_svg("", "", "", {}).ends_with("</svg>\n"));
}

}  // namespace
}  // namespace multihead
