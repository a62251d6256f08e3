#include "image.hpp"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>

#include "error.hpp"

namespace carina {
namespace {

namespace fs = std::filesystem;

constexpr int16_t kAir = -1000, kLowestHu = -1024;
constexpr int64_t kMostVoxels = int64_t{1} << 31;

struct Header {
  std::map<std::string, std::string> entries;
  std::string rest;  // what follows the header in the same file

  [[nodiscard]] bool has(const std::string& key) const { return entries.contains(key); }
  [[nodiscard]] std::string get(const std::string& key, const std::string& otherwise = "") const {
    const auto found = entries.find(key);
    return found == entries.end() ? otherwise : found->second;
  }
};

struct Raw {
  std::vector<double> values;
  Geometry geometry;
};

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// As ITK reads it: the first letter decides.
bool is_true(const std::string& text) { return text.starts_with('T') || text.starts_with('t') || text.starts_with('1'); }

std::string whole(const fs::path& path) {
  if (fs::is_directory(path)) throw Error(path.string() + " is a folder; give a MetaImage file (.mhd or .mha)");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("cannot open " + path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Header read_header(const fs::path& path) {
  const std::string content = whole(path);
  Header header;
  size_t at = 0;
  for (int64_t number = 1; at < content.size(); ++number) {
    const size_t end = content.find('\n', at);
    const std::string line = content.substr(at, end == std::string::npos ? end : end - at);
    at = end == std::string::npos ? content.size() : end + 1;
    if (trimmed(line).empty()) continue;
    const size_t equals = line.find('=');
    if (equals == std::string::npos || line.size() > 4096)
      throw Error(path.string() + " is not a MetaImage header: no 'key = value' in line " +
                  std::to_string(number));
    const std::string key = trimmed(line.substr(0, equals));
    header.entries[key] = trimmed(line.substr(equals + 1));
    if (key == "ElementDataFile") {
      header.rest = content.substr(at);
      return header;
    }
  }
  throw Error(path.string() + " is not a MetaImage header: ElementDataFile is missing");
}

std::vector<double> numbers(const fs::path& path, const Header& header, const std::string& key, size_t count,
                            const std::string& otherwise = "") {
  std::istringstream text(header.get(key, otherwise));
  std::vector<double> out;
  for (double value = 0; text >> value;) out.push_back(value);
  if (out.size() != count || !text.eof())
    throw Error(path.string() + ": " + key + " = '" + header.get(key) + "', expected " + std::to_string(count) +
                " numbers");
  return out;
}

Geometry geometry_of(const fs::path& path, const Header& header) {
  if (header.get("NDims") != "3") throw Error(path.string() + ": NDims is " + header.get("NDims", "missing") + ", not 3");
  Geometry geometry;
  const auto size = numbers(path, header, "DimSize", 3);
  const auto spacing = numbers(path, header, header.has("ElementSpacing") ? "ElementSpacing" : "ElementSize", 3, "1 1 1");
  const char* origin_key = header.has("Offset") ? "Offset" : header.has("Position") ? "Position" : "Origin";
  const auto origin = numbers(path, header, origin_key, 3, "0 0 0");
  const char* axes_key = header.has("TransformMatrix") ? "TransformMatrix"
                         : header.has("Rotation")      ? "Rotation"
                                                       : "Orientation";
  const auto axes = numbers(path, header, axes_key, 9, "1 0 0 0 1 0 0 0 1");
  double voxels = 1;
  for (int i = 0; i < 3; ++i) {
    const int axis = 2 - i;  // files count x first, arrays z first
    if (!(size[i] >= 1 && size[i] == std::floor(size[i])) || !(spacing[i] > 0))
      throw Error(path.string() + ": DimSize and ElementSpacing must be positive");
    voxels *= size[i];
    geometry.shape[axis] = static_cast<int64_t>(size[i]);
    geometry.origin[i] = origin[i];
    for (int k = 0; k < 3; ++k) geometry.step[axis][k] = axes[3 * i + k] * spacing[i];
  }
  if (voxels >= static_cast<double>(kMostVoxels)) throw Error(path.string() + ": too many voxels for a CT");
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) {
      double product = 0;
      for (int k = 0; k < 3; ++k) product += axes[3 * a + k] * axes[3 * b + k];
      if (std::abs(product - (a == b ? 1.0 : 0.0)) > 1e-3)
        throw Error(path.string() + ": the axes in " + axes_key + " are not perpendicular unit vectors");
    }
  return geometry;
}

std::string inflated(const fs::path& path, const std::string& packed, size_t expected) {
  std::string out(expected, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, 47) != Z_OK) throw Error("zlib cannot start");  // 47: zlib's or gzip's header
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  size_t used = 0, given = 0;
  int status = Z_OK;
  while (status == Z_OK && used < expected) {
    const size_t feed = std::min<size_t>(packed.size() - given, 1U << 30), room = std::min<size_t>(expected - used, 1U << 30);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + given));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + used);
    stream.avail_in = static_cast<uInt>(feed);
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);
    given += feed - stream.avail_in;
    used += room - stream.avail_out;
  }
  inflateEnd(&stream);
  if (used != expected)
    throw Error(path.string() + ": the compressed voxels are damaged or cut short, " + std::to_string(used) + " of " +
                std::to_string(expected) + " bytes");
  return out;
}

template <typename T>
void convert(const std::string& bytes, bool swap, std::vector<double>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    std::array<char, sizeof(T)> raw{};
    std::memcpy(raw.data(), bytes.data() + i * sizeof(T), sizeof(T));
    if (swap) std::reverse(raw.begin(), raw.end());
    out[i] = static_cast<double>(std::bit_cast<T>(raw));
  }
}

Raw read_raw(const fs::path& path) {
  const Header header = read_header(path);
  Raw raw{{}, geometry_of(path, header)};
  const std::string type = header.get("ElementType");
  const std::map<std::string, size_t> sizes{{"MET_CHAR", 1},  {"MET_UCHAR", 1}, {"MET_SHORT", 2}, {"MET_USHORT", 2},
                                            {"MET_INT", 4},   {"MET_UINT", 4},  {"MET_FLOAT", 4}, {"MET_DOUBLE", 8}};
  if (!sizes.contains(type)) throw Error(path.string() + ": ElementType '" + type + "' is not supported");
  if (header.get("ElementNumberOfChannels", "1") != "1") throw Error(path.string() + ": more than one value a voxel");
  const size_t expected = static_cast<size_t>(raw.geometry.voxels()) * sizes.at(type);
  const std::string name = header.get("ElementDataFile");
  if (name == "LIST" || name.find('%') != std::string::npos)
    throw Error(path.string() + ": voxels in a list of files are not supported");
  const fs::path data_path = name == "LOCAL" ? path : path.parent_path() / name;
  std::string bytes = name == "LOCAL" ? header.rest : whole(data_path);
  if (is_true(header.get("CompressedData"))) {
    bytes = inflated(data_path, bytes, expected);
  } else {
    const std::string skip = header.get("HeaderSize", "0");
    if (skip == "-1" && bytes.size() >= expected) bytes = bytes.substr(bytes.size() - expected);
    else if (skip != "0" && skip != "-1") throw Error(path.string() + ": HeaderSize " + skip + " is not supported");
  }
  if (bytes.size() < expected)
    throw Error(data_path.string() + " has " + std::to_string(bytes.size()) + " bytes of voxels, the header asks for " +
                std::to_string(expected));
  raw.values.resize(static_cast<size_t>(raw.geometry.voxels()));
  const std::string order = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB"));
  const bool swap = is_true(order) && std::endian::native == std::endian::little;
  if (type == "MET_CHAR") convert<int8_t>(bytes, swap, raw.values);
  else if (type == "MET_UCHAR") convert<uint8_t>(bytes, swap, raw.values);
  else if (type == "MET_SHORT") convert<int16_t>(bytes, swap, raw.values);
  else if (type == "MET_USHORT") convert<uint16_t>(bytes, swap, raw.values);
  else if (type == "MET_INT") convert<int32_t>(bytes, swap, raw.values);
  else if (type == "MET_UINT") convert<uint32_t>(bytes, swap, raw.values);
  else if (type == "MET_FLOAT") convert<float>(bytes, swap, raw.values);
  else convert<double>(bytes, swap, raw.values);
  return raw;
}

}  // namespace

Ct read_ct(const fs::path& path) {
  const Raw raw = read_raw(path);
  Ct ct{{}, raw.geometry, {}};
  ct.hu.reserve(raw.values.size());
  int64_t lost = 0;
  int16_t lowest = std::numeric_limits<int16_t>::max(), highest = std::numeric_limits<int16_t>::min();
  for (double value : raw.values) {
    if (!std::isfinite(value)) {
      value = value > 0 ? 32767 : kAir;
      ++lost;
    }
    auto hu = static_cast<int16_t>(std::clamp(std::nearbyint(value), -32768.0, 32767.0));
    if (hu < kLowestHu) hu = kAir;
    lowest = std::min(lowest, hu);
    highest = std::max(highest, hu);
    ct.hu.push_back(hu);
  }
  if (lowest >= 0)
    throw Error(path.string() + ": values run from " + std::to_string(lowest) + " to " + std::to_string(highest) +
                ", which cannot be HU (air is -1000). Give the CT in HU");
  if (lost > 0) ct.warnings.push_back(std::to_string(lost) + " voxels were not finite numbers and were taken as air");
  if (lowest > -500)
    ct.warnings.push_back("no voxel is below " + std::to_string(lowest) +
                          " HU: the image shows neither lung nor air around the patient");
  return ct;
}

Mask read_mask(const fs::path& path) {
  const Raw raw = read_raw(path);
  Mask mask{{}, raw.geometry};
  mask.values.reserve(raw.values.size());
  for (const double value : raw.values) {
    if (!(value >= 0 && value <= 255)) throw Error(path.string() + " is no mask: it holds " + std::to_string(value));
    mask.values.push_back(static_cast<uint8_t>(value));
  }
  return mask;
}

}  // namespace carina
