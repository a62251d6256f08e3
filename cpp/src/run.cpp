// carina-run: the networks of `carina export --pipeline` on a MetaImage, without Python.
#include <ATen/Parallel.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <iostream>
#include <map>

#include "error.hpp"
#include "report.hpp"
#include "tables.hpp"

namespace {

using namespace carina;
namespace fs = std::filesystem;

constexpr auto kUsage =
    R"(usage: carina-run SCAN.mhd --exported DIR [--format traced] [--candidates CSV] [--threads N] -o REPORT.json

Runs exported networks on a chest CT in MetaImage form, without Python. For research use only.

  SCAN              .mhd or .mha, HU
  --exported DIR    what `carina export --pipeline --scan SCAN -o DIR` wrote: networks, manifest.json, pipeline.json,
                    region-segmentation.mha and region-nodule.mha, the lungs of this scan on the networks' grids,
                    and lungs.json
  --regions DIR     where the regions are, if they are in another folder
  --format NAME     traced, scripted or aoti; of the nodule network also front-end (C++ front end). Default: traced
  --candidates CSV  classify these positions (seriesuid,coordX,coordY,coordZ in mm, LPS) and segment nothing
  --threads N       threads of the networks; default: as many as LibTorch takes
  -o FILE           where the JSON goes
)";

struct Arguments {
  std::string scan;
  std::map<std::string, std::string> options{{"--format", "traced"}};

  Arguments(int count, char** values) {
    const std::vector<std::string> known{"--exported", "--regions", "--format", "--candidates", "--threads", "-o"};
    for (int i = 1; i < count; ++i) {
      const std::string word = values[i];
      if (word.starts_with("-")) {
        if (std::find(known.begin(), known.end(), word) == known.end()) throw UsageError("unknown option " + word);
        if (i + 1 >= count) throw UsageError(word + " needs a value");
        options[word] = values[++i];
      } else if (scan.empty()) {
        scan = word;
      } else {
        throw UsageError("a second scan, " + word);
      }
    }
    if (scan.empty()) throw UsageError("no scan given");
    for (const char* needed : {"--exported", "-o"})
      if (!options.contains(needed)) throw UsageError(std::string(needed) + " is missing");
  }

  [[nodiscard]] fs::path exported() const { return options.at("--exported"); }
  [[nodiscard]] fs::path regions() const {
    return options.contains("--regions") ? fs::path(options.at("--regions")) : exported();
  }
  [[nodiscard]] fs::path region(const std::string& network) const { return regions() / ("region-" + network + ".mha"); }
};

int threads(const std::string& text) {
  int count = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), count);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || count < 1)
    throw UsageError("--threads is '" + text + "', expected a whole number from 1");
  return count;
}

class Clock {
 public:
  void stop(const std::string& stage) {
    const auto now = std::chrono::steady_clock::now();
    seconds.emplace_back(stage, std::chrono::duration<double>(now - begin_).count());
    begin_ = now;
  }
  Seconds seconds;

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

Network network(const Arguments& arguments, const std::string& name) {
  const std::string& format = arguments.options.at("--format");
  const fs::path stem = arguments.exported() / name;
  if (format == "traced" || format == "scripted") return load_network(stem.string() + "." + format + ".pt");
  if (format == "aoti") return load_network(stem.string() + ".aoti.pt2");
  if (format == "front-end")
    return name == "nodule" ? load_front_end(stem.string() + ".traced.pt") : load_network(stem.string() + ".traced.pt");
  throw UsageError("unknown format " + format + "; choose traced, scripted, aoti or front-end");
}

// The scan on the grid of the region. Throws Error: the grids have nothing in common, or not the networks' spacing.
Scan prepare(const Ct& ct, const fs::path& region_path, const Preprocessing& wanted, int16_t fill_hu) {
  Mask region = read_mask(region_path);
  const Vector3 spacing = region.geometry.spacing();
  for (int axis = 0; axis < 3; ++axis)
    if (std::abs(spacing[axis] - wanted.spacing[axis]) > 1e-3)
      throw Error(region_path.string() + " has a spacing of " + std::to_string(spacing[axis]) + " mm along axis " +
                  std::to_string(axis) + ", the network needs " + std::to_string(wanted.spacing[axis]));
  Scan scan{resample(ct.hu, ct.geometry, region.geometry, fill_hu), std::move(region.values),
            region.geometry};
  const auto outside = std::count(scan.hu.begin(), scan.hu.end(), fill_hu);
  if (outside == static_cast<int64_t>(scan.hu.size()))
    throw Error(region_path.string() + " lies outside the scan; it belongs to another one");
  return scan;
}

// How many litres the lungs hold. Throws Error: they are not this scan's.
double lung_litres(const fs::path& path, const Geometry& scan, const std::string& series_uid) {
  constexpr double kSameMm = 0.01;  // of the scan's first and last voxels
  const Json lungs = Json::read(path);
  bool same = true;
  for (size_t i = 0; i < 3; ++i) {
    const auto& row = lungs.at("affine").list().at(i).list();
    same = same && lungs.at("shape_zyx").list().at(i).integer() == scan.shape[i] &&
           std::abs(row.at(3).number() - scan.origin[i]) <= kSameMm;
    for (size_t axis = 0; axis < 3; ++axis) {
      const double voxels = static_cast<double>(scan.shape[axis] - 1);
      same = same && std::abs(row.at(axis).number() - scan.step[axis][i]) * voxels <= kSameMm;
    }
  }
  if (!same) throw Error(path.string() + " belongs to a scan on another grid; write it with --scan for this one");
  const Json& uid = lungs.at("series_uid");
  if (!uid.is_null() && !series_uid.empty() && uid.text() != series_uid)
    throw Error(path.string() + " belongs to series " + uid.text() + ", the scan is " + series_uid);
  return lungs.at("lung_litres").number();
}

int run(const Arguments& arguments) {
  Clock clock;
  if (arguments.options.contains("--threads")) at::set_num_threads(threads(arguments.options.at("--threads")));
  const Json manifest = Json::read(arguments.exported() / "manifest.json");
  const Json constants_json = Json::read(arguments.exported() / "pipeline.json");
  const Constants constants(constants_json);
  const auto card = [&](const char* name) { return &manifest.at("networks").at(name).at("card"); };
  const std::string version = manifest.at("carina_version").text();
  const Network nodule = network(arguments, "nodule");
  clock.stop("load");

  Ct ct = read_ct(arguments.scan);
  clock.stop("read");
  const std::string series_uid = series_uid_of(arguments.scan);
  const double litres = lung_litres(arguments.regions() / "lungs.json", ct.geometry, series_uid);
  const Scan crops = prepare(ct, arguments.region("nodule"), constants.nodule, constants.fill_hu);
  clock.stop("lungs");
  const Input input{arguments.scan, series_uid, ct, litres};
  std::vector<Model> models{{"nodule", card("nodule"), nodule.runtime}};
  const fs::path output = arguments.options.at("-o");

  if (arguments.options.contains("--candidates")) {
    const auto centers = read_candidates(arguments.options.at("--candidates"), input.series_uid);
    const auto scores = classify(crops, centers, nodule, constants);
    clock.stop("classify");
    write_json(classified(input, centers, scores, models, clock.seconds, version), output);
    std::cout << arguments.scan << ": " << centers.size() << " candidates classified; " << output.string() << '\n';
    return 0;
  }
  const Network segmentation = network(arguments, "segmentation");
  models.insert(models.begin(), Model{"segmentation", card("segmentation"), segmentation.runtime});
  const Scan scan = prepare(ct, arguments.region("segmentation"), constants.segmentation, constants.fill_hu);
  clock.stop("resample");
  const auto probability = segment(scan, segmentation, constants);
  clock.stop("segment");
  auto candidates = group(scan, probability, constants);
  if (static_cast<int64_t>(candidates.size()) > constants.most_candidates) {
    ct.warnings.push_back(std::to_string(candidates.size()) + " candidates; only the " +
                          std::to_string(constants.most_candidates) + " best were looked at");
    candidates.resize(static_cast<size_t>(constants.most_candidates));
  }
  clock.stop("group");
  std::vector<Vector3> centers;
  for (const auto& candidate : candidates) centers.push_back(candidate.center_lps);
  const auto scores = classify(crops, centers, nodule, constants);
  clock.stop("classify");
  const Json out = report(input, candidates, scores, constants, models, clock.seconds, version);
  write_json(out, output);
  std::cout << arguments.scan << ": " << candidates.size() << " candidates, " << out.at("findings").list().size()
            << " findings; " << output.string() << '\n';
  return 0;
}

}  // namespace

int main(int count, char** values) {
  if (count == 2 && (std::string(values[1]) == "--help" || std::string(values[1]) == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  try {
    return run(Arguments(count, values));
  } catch (const UsageError& error) {
    std::cerr << "carina-run: " << error.what() << "\n\n" << kUsage;
    return 2;
  } catch (const Error& error) {
    std::cerr << "carina-run: " << error.what() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "carina-run: " << error.what() << '\n';
    return 1;
  }
}
