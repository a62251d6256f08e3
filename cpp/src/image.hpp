// MetaImage files (.mhd with .raw or .zraw, and .mha): the format of LUNA16. Must not know networks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "geometry.hpp"

namespace carina {

struct Ct {
  std::vector<int16_t> hu;  // (z, y, x), x fastest
  Geometry geometry;
  std::vector<std::string> warnings;
};

struct Mask {
  std::vector<uint8_t> values;
  Geometry geometry;
};

// Throws Error: cannot be read, is cut short, is no 3-D image, or its numbers cannot be HU.
Ct read_ct(const std::filesystem::path& path);

// Throws Error likewise; any type whose values lie in 0..255.
Mask read_mask(const std::filesystem::path& path);

}  // namespace carina
