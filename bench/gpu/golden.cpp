#include "bench/gpu/golden.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "kernels/api/check.h"

namespace heddle::bench {
namespace {

constexpr size_t kParts = 8;

size_t part_size(size_t words) {
  return std::max<size_t>(1, (words + kParts - 1) / kParts);
}
// FNV-1a, 64 bits, over the words' bytes from the lowest.
uint64_t hash(const Words& words, size_t begin, size_t end) {
  uint64_t value = 0xCBF29CE484222325u;
  for (size_t i = begin; i < end; ++i) {
    for (int shift = 0; shift < 32; shift += 8) value = (value ^ (words[i] >> shift & 0xFF)) * 0x100000001B3u;
  }
  return value;
}
std::string in_hexadecimal(const Words& words, size_t begin, size_t end) {
  std::ostringstream out;
  out << std::hex;
  for (size_t i = begin; i < end; ++i) out << (i == begin ? "" : " ") << words[i];
  return out.str();
}

std::string compare_near(const ConformanceCase& c, const Words& words, std::istringstream& golden) {
  golden >> std::hex;
  for (size_t i = 0; i < words.size(); ++i) {
    uint32_t word = 0;
    if (!(golden >> word)) return "the golden line is cut off";
    const double got = __builtin_bit_cast(float, words[i]), want = __builtin_bit_cast(float, word);
    const double allowed = c.tolerance[i % c.tolerance.size()] * std::max(1.0, std::abs(want));
    if (words[i] != word && !(std::abs(got - want) <= allowed))
      return concat("word ", i, " is ", got, ", golden ", want, ", may be off by ", allowed);
  }
  return "";
}
std::string compare_bits(const Words& words, std::istringstream& golden) {
  golden >> std::hex;
  const size_t step = part_size(words.size());
  for (size_t begin = 0; begin < words.size(); begin += step) {
    const size_t end = std::min(words.size(), begin + step);
    uint64_t want = 0;
    if (!(golden >> want)) return "the golden line is cut off";
    constexpr size_t kShown = 64;
    if (hash(words, begin, end) != want)
      return concat("words ", begin, " to ", end - 1, " differ; they are ", in_hexadecimal(words, begin, std::min(end, begin + kShown)),
                    end - begin > kShown ? " ..." : "");
  }
  return "";
}

}  // namespace

Golden read_golden(const std::string& path) {
  std::ifstream in(path);
  HEDDLE_CHECK(in.is_open(), "acceptance", "cannot read the golden file ", path);
  Golden golden{.file = path.substr(path.rfind('/') + 1)};
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') golden.lines[line.substr(0, line.find(' '))] = line;
  }
  return golden;
}

std::string golden_line(const ConformanceCase& c, const Words& words) {
  std::ostringstream out;
  out << c.name << (c.tolerance.empty() ? " bits " : " near ") << words.size();
  if (!c.tolerance.empty()) return out.str() + ' ' + in_hexadecimal(words, 0, words.size());
  const size_t step = part_size(words.size());
  for (size_t begin = 0; begin < words.size(); begin += step) out << ' ' << std::hex << hash(words, begin, std::min(words.size(), begin + step));
  return out.str();
}

std::string compare_with_golden(const ConformanceCase& c, const Words& words, const Golden& golden) {
  const auto found = golden.lines.find(c.name);
  if (found == golden.lines.end()) return golden.file + " does not have it";
  std::istringstream line(found->second);
  std::string name, kind;
  size_t count = 0;
  line >> name >> kind >> count;
  std::string fault;
  if (!line || kind != (c.tolerance.empty() ? "bits" : "near")) {
    fault = "no such line is written by golden_line";
  } else if (count != words.size()) {
    fault = concat(words.size(), " words, golden ", count);
  } else {
    fault = c.tolerance.empty() ? compare_bits(words, line) : compare_near(c, words, line);
  }
  return fault.empty() ? "" : golden.file + ": " + fault;
}

}  // namespace heddle::bench
