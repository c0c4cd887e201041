#include "kernels/cuda/resource_gate_table.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

namespace heddle::kernels::cuda {
namespace {

constexpr int kOtherCompilerRegisters = 16;

// The integers of a row, in the order of the file, by name.
struct Column {
  const char* name;
  int& (*of)(Row&);
};
const Column kColumns[] = {
    {"threads", [](Row& r) -> int& { return r.launch.threads; }},  {"dynamic_shared", [](Row& r) -> int& { return r.launch.dynamic_shared; }},
    {"registers", [](Row& r) -> int& { return r.registers; }},     {"static_shared", [](Row& r) -> int& { return r.static_shared; }},
    {"blocks_sm80", [](Row& r) -> int& { return r.sm80.blocks; }}, {"warps_sm80", [](Row& r) -> int& { return r.sm80.warps; }},
    {"blocks_sm90", [](Row& r) -> int& { return r.sm90.blocks; }}, {"warps_sm90", [](Row& r) -> int& { return r.sm90.warps; }},
};

std::filesystem::path table_file(const std::filesystem::path& folder, const char* kind, const std::string& version) {
  return folder / (kind + ("-" + version + ".txt"));
}

template <class F>
void each_line(const std::filesystem::path& path, int arch, const F& f) {
  std::istringstream lines(text_of(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string key;
    int of = 0;
    words >> of >> key;
    if (of == arch) f(key, words);
    if (!words) throw std::runtime_error(path.string() + ": a line that is no row: " + line);
  }
}

// Rows of one architecture.
Table golden_table(const std::filesystem::path& folder, const std::string& version, int arch) {
  Table table;
  each_line(table_file(folder, "nvcc", version), arch, [&](const std::string& key, std::istream& words) {
    Row& row = table[key];
    for (const Column& column : kColumns) words >> column.of(row);
    for (int& count : row.counts) words >> count;
  });
  const std::filesystem::path loops = table_file(folder, "loops", version);
  if (!std::filesystem::exists(loops)) return table;
  each_line(loops, arch, [&](const std::string& key, std::istream& words) {
    size_t number = 0;
    LoopFigures figures = {};
    words >> number;
    for (int64_t& figure : figures) words >> figure;
    const auto row = table.find(key);
    if (row == table.end() || number != row->second.loops.figures.size())
      throw std::runtime_error(loops.string() + ": a loop out of order, or of no kernel: " + key);
    row->second.loops.figures.push_back(figures);
  });
  return table;
}

std::vector<std::string> kernel_lines(int arch, const Table& table) {
  std::vector<std::string> lines;
  for (const auto& [key, row] : table) {
    std::ostringstream out;
    Row copy = row;
    out << arch << ' ' << key;
    for (const Column& column : kColumns) out << ' ' << column.of(copy);
    for (const int count : row.counts) out << ' ' << count;
    lines.push_back(out.str());
  }
  return lines;
}

std::vector<std::string> loop_lines(int arch, const Table& table) {
  std::vector<std::string> lines;
  for (const auto& [key, row] : table) {
    for (size_t number = 0; number < row.loops.figures.size(); ++number) {
      std::ostringstream out;
      out << arch << ' ' << key << ' ' << number;
      for (const int64_t figure : row.loops.figures[number]) out << ' ' << figure;
      lines.push_back(out.str());
    }
  }
  return lines;
}

// Rows of other architectures stay.
void write_lines(const std::filesystem::path& path, int arch, const std::string& head, std::vector<std::string> lines) {
  if (std::ifstream in(path); in) {
    for (std::string line; std::getline(in, line);) {
      if (!line.empty() && line[0] != '#' && std::atoi(line.c_str()) != arch) lines.push_back(line);
    }
  }
  std::sort(lines.begin(), lines.end());
  std::ofstream out(path);
  out << head << '\n';
  for (const std::string& line : lines) out << line << '\n';
}

template <class Names>
std::string head_of(std::string head, const Names& names) {
  for (const char* name : names) head += std::string(" ") + name;
  return head;
}

void compare(const std::string& key, Row got, Row want, bool exact, std::vector<std::string>& faults) {
  const auto differs = [&](const std::string& what, int64_t is, int64_t was) {
    if (is != was) faults.push_back(key + ": " + what + " " + std::to_string(is) + ", golden " + std::to_string(was));
  };
  if (!exact) {
    if (got.registers > want.registers + kOtherCompilerRegisters) differs("registers", got.registers, want.registers);
    if (got.static_shared > want.static_shared) differs("static_shared", got.static_shared, want.static_shared);
    if (got.launch.dynamic_shared > want.launch.dynamic_shared) differs("dynamic_shared", got.launch.dynamic_shared, want.launch.dynamic_shared);
    return;
  }
  for (const Column& column : kColumns) differs(column.name, column.of(got), column.of(want));
  if (got.counts[0] < 0 || want.counts[0] < 0) return;
  for (size_t i = 0; i < kCountedSize; ++i) differs(kCountedNames[i], got.counts[i], want.counts[i]);
  const size_t loops = got.loops.figures.size(), golden_loops = want.loops.figures.size();
  if (loops != golden_loops) {
    differs("main loops", static_cast<int64_t>(loops), static_cast<int64_t>(golden_loops));
    return;
  }
  for (size_t n = 0; n < loops; ++n) {
    for (size_t i = 0; i < kLoopFiguresSize; ++i)
      differs("main loop " + std::to_string(n) + ": " + kLoopFigureNames[i], got.loops.figures[n][i], want.loops.figures[n][i]);
  }
}

}  // namespace

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void print(int arch, const Table& table) {
  for (const std::string& line : kernel_lines(arch, table)) std::cout << line << '\n';
  for (const std::string& line : loop_lines(arch, table)) std::cout << "loop " << line << '\n';
}

void write_golden(const std::filesystem::path& folder, const std::string& version, int arch, Table table) {
  if (std::filesystem::exists(table_file(folder, "nvcc", version))) {
    for (const auto& [key, row] : golden_table(folder, version, arch)) {
      const auto found = table.find(key);
      if (found == table.end() || found->second.counts[0] >= 0) continue;
      found->second.counts = row.counts;
      found->second.loops = row.loops;
    }
  }
  std::vector<const char*> columns;
  for (const Column& column : kColumns) columns.push_back(column.name);
  write_lines(table_file(folder, "nvcc", version), arch, head_of(head_of("# arch kernel", columns), kCountedNames), kernel_lines(arch, table));
  write_lines(table_file(folder, "loops", version), arch, head_of("# arch kernel loop", kLoopFigureNames), loop_lines(arch, table));
}

void compare_with_golden(const std::filesystem::path& folder, const std::string& version, int arch, const Table& table,
                         std::vector<std::string>& faults) {
  const bool exact = std::filesystem::exists(table_file(folder, "nvcc", version));
  std::string of = version;
  if (!exact) {
    of.clear();
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().stem().string();
      if (name.rfind("nvcc-", 0) == 0) of = std::max(of, name.substr(5));
    }
    if (of.empty()) throw std::runtime_error("no table in " + folder.string());
    std::cout << "no table for nvcc " << version << ": bounds from that of " << of << '\n';
  }
  const Table golden = golden_table(folder, of, arch);
  for (const auto& [key, row] : table) {
    if (const auto found = golden.find(key); found != golden.end()) {
      compare(key, row, found->second, exact, faults);
    } else {
      faults.push_back(key + ": not in the golden table");
    }
  }
  for (const auto& [key, row] : golden) {
    if (exact && !table.count(key)) faults.push_back(key + ": in the golden table, but not compiled");
  }
}

}  // namespace heddle::kernels::cuda
