// Where voxels lie in the patient: array index (z, y, x) to millimetres (LPS), and resampling between such grids.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace carina {

using Vector3 = std::array<double, 3>;
using Shape3 = std::array<int64_t, 3>;

struct Geometry {
  Shape3 shape{};                  // voxels along z, y, x of the array
  std::array<Vector3, 3> step{};   // step[k]: millimetres (LPS) from a voxel to the next along array axis k
  Vector3 origin{};                // millimetres (LPS) of voxel (0, 0, 0)

  [[nodiscard]] int64_t voxels() const { return shape[0] * shape[1] * shape[2]; }
  [[nodiscard]] Vector3 spacing() const;
  [[nodiscard]] double voxel_volume() const;
  [[nodiscard]] Vector3 to_lps(const Vector3& zyx) const;
  [[nodiscard]] Vector3 to_zyx(const Vector3& lps) const;
};

// HU at the voxel centres of `target`, trilinear, rounded; `fill` beyond half a voxel outside the source.
std::vector<int16_t> resample(const std::vector<int16_t>& hu, const Geometry& source, const Geometry& target,
                              int16_t fill);

}  // namespace carina
