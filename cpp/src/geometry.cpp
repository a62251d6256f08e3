#include "geometry.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace carina {
namespace {

double dot(const Vector3& a, const Vector3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

Vector3 cross(const Vector3& a, const Vector3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// Along one target axis: whether each voxel lies in the source, its two source voxels and the weight of the second.
struct Taps {
  std::vector<bool> inside;
  std::vector<int64_t> low, high;
  std::vector<float> weight;
};

Taps taps(int64_t n_source, int64_t n_target, double start, double step) {
  Taps out;
  for (int64_t k = 0; k < n_target; ++k) {
    double position = start + step * static_cast<double>(k);
    const double end = static_cast<double>(n_source);
    out.inside.push_back(position >= -0.5 - 1e-6 && position <= end - 0.5 + 1e-6);
    position = std::clamp(position, 0.0, end - 1.0);
    const int64_t low = std::min(static_cast<int64_t>(position), std::max<int64_t>(n_source - 2, 0));
    out.low.push_back(low);
    out.high.push_back(std::min(low + 1, n_source - 1));
    out.weight.push_back(static_cast<float>(position - static_cast<double>(low)));
  }
  return out;
}

float mix(float first, float second, float weight) { return (second - first) * weight + first; }

int16_t rounded(float value) { return static_cast<int16_t>(std::nearbyint(value)); }

}  // namespace

Vector3 Geometry::spacing() const {
  return {std::sqrt(dot(step[0], step[0])), std::sqrt(dot(step[1], step[1])), std::sqrt(dot(step[2], step[2]))};
}

double Geometry::voxel_volume() const {
  const Vector3 s = spacing();
  return s[0] * s[1] * s[2];
}

Vector3 Geometry::to_lps(const Vector3& zyx) const {
  Vector3 out = origin;
  for (int axis = 0; axis < 3; ++axis)
    for (int i = 0; i < 3; ++i) out[i] += step[axis][i] * zyx[axis];
  return out;
}

Vector3 Geometry::to_zyx(const Vector3& lps) const {
  const Vector3 offset{lps[0] - origin[0], lps[1] - origin[1], lps[2] - origin[2]};
  const double volume = dot(step[0], cross(step[1], step[2]));
  return {dot(offset, cross(step[1], step[2])) / volume, dot(offset, cross(step[2], step[0])) / volume,
          dot(offset, cross(step[0], step[1])) / volume};
}

std::vector<int16_t> resample(const std::vector<int16_t>& hu, const Geometry& source, const Geometry& target,
                              int16_t fill) {
  std::vector<int16_t> out(target.voxels(), fill);
  const Vector3 start = source.to_zyx(target.origin);
  std::array<Vector3, 3> step{};  // step[k]: source index per target voxel along target axis k
  for (int k = 0; k < 3; ++k) {
    const Vector3 next = source.to_zyx({target.origin[0] + target.step[k][0], target.origin[1] + target.step[k][1],
                                        target.origin[2] + target.step[k][2]});
    for (int i = 0; i < 3; ++i) step[k][i] = next[i] - start[i];
  }
  std::array<int, 3> along{};  // the source axis that target axis k follows most
  double tilt = 0;
  for (int k = 0; k < 3; ++k)
    along[k] = static_cast<int>(std::max_element(step[k].begin(), step[k].end(),
                                                 [](double a, double b) { return std::abs(a) < std::abs(b); }) -
                                step[k].begin());
  for (int i = 0; i < 3; ++i) {
    double moved = 0;
    for (int k = 0; k < 3; ++k)
      if (along[k] != i) moved += std::abs(step[k][i]) * static_cast<double>(target.shape[k]);
    tilt = std::max(tilt, moved);
  }
  const std::array<int64_t, 3> stride{source.shape[1] * source.shape[2], source.shape[2], 1};
  const bool straight = along[0] != along[1] && along[1] != along[2] && along[0] != along[2] && tilt < 1e-3;
  if (straight) {
    std::array<Taps, 3> t;
    for (int k = 0; k < 3; ++k)
      t[k] = taps(source.shape[along[k]], target.shape[k], start[along[k]], step[k][along[k]]);
    const int64_t sz = stride[along[0]], sy = stride[along[1]], sx = stride[along[2]];
    int64_t at = 0;
    for (int64_t z = 0; z < target.shape[0]; ++z)
      for (int64_t y = 0; y < target.shape[1]; ++y)
        for (int64_t x = 0; x < target.shape[2]; ++x, ++at) {
          if (!(t[0].inside[z] && t[1].inside[y] && t[2].inside[x])) continue;
          // Along z first, then y, then x, in single precision, as Python does.
          const auto column = [&](int64_t y_, int64_t x_) {
            const int64_t base = y_ * sy + x_ * sx;
            return mix(hu[t[0].low[z] * sz + base], hu[t[0].high[z] * sz + base], t[0].weight[z]);
          };
          const auto row = [&](int64_t x_) {
            return mix(column(t[1].low[y], x_), column(t[1].high[y], x_), t[1].weight[y]);
          };
          out[at] = rounded(mix(row(t[2].low[x]), row(t[2].high[x]), t[2].weight[x]));
        }
    return out;
  }
  int64_t at = 0;
  for (int64_t z = 0; z < target.shape[0]; ++z)
    for (int64_t y = 0; y < target.shape[1]; ++y)
      for (int64_t x = 0; x < target.shape[2]; ++x, ++at) {
        bool inside = true;
        std::array<int64_t, 3> low{}, high{};
        Vector3 weight{};
        for (int i = 0; i < 3; ++i) {
          double position = start[i] + step[0][i] * static_cast<double>(z) + step[1][i] * static_cast<double>(y) +
                            step[2][i] * static_cast<double>(x);
          const double end = static_cast<double>(source.shape[i]);
          inside = inside && position >= -0.5 - 1e-6 && position <= end - 0.5 + 1e-6;
          position = std::clamp(position, 0.0, end - 1.0);
          low[i] = std::min(static_cast<int64_t>(position), std::max<int64_t>(source.shape[i] - 2, 0));
          high[i] = std::min(low[i] + 1, source.shape[i] - 1);
          weight[i] = position - static_cast<double>(low[i]);
        }
        if (!inside) continue;
        double value = 0;
        for (int corner = 0; corner < 8; ++corner) {
          double share = 1;
          int64_t index = 0;
          for (int i = 0; i < 3; ++i) {
            const bool upper = corner >> i & 1;
            share *= upper ? weight[i] : 1 - weight[i];
            index += (upper ? high[i] : low[i]) * stride[i];
          }
          value += share * hu[index];
        }
        out[at] = rounded(static_cast<float>(value));
      }
  return out;
}

}  // namespace carina
