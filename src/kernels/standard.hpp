// SPDX-License-Identifier: Apache-2.0
// The standard headers that the .inl.hpp files lean on, included before a region opens.
#pragma once

#include <algorithm>
#include <bit>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>
