#include "kernels/sim/mutation.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <tuple>

#include "kernels/api/check.h"

namespace heddle::sim {

namespace {

// Does `path` end in the components of `tail`?
bool path_ends_with(std::string_view path, std::string_view tail) {
  if (path.size() < tail.size() || path.substr(path.size() - tail.size()) != tail) return false;
  return path.size() == tail.size() || path[path.size() - tail.size() - 1] == '/';
}

std::string_view short_path(std::string_view path) {
#ifdef HEDDLE_SOURCE_ROOT
  constexpr std::string_view root = HEDDLE_SOURCE_ROOT "/";
  if (path.substr(0, root.size()) == root) path.remove_prefix(root.size());
#endif
  return path;
}

int positive(std::string_view digits, std::string_view whole) {
  int value = 0;
  bool good = !digits.empty() && digits.size() < 9;
  for (const char c : digits) {
    good = good && c >= '0' && c <= '9';
    value = value * 10 + (c - '0');
  }
  HEDDLE_CHECK(good && value > 0, "sim", "a mutation is file:line[#operation]:drop or ...:weaken, not '", whole, "'");
  return value;
}

// Reads the environment once; writes the list when the process ends.
class Mutator {
 public:
  Mutator() {
    if (const char* text = std::getenv("HEDDLE_SIM_MUTATE"); text != nullptr && *text != 0) spec_ = parse_mutation(text);
    if (const char* path = std::getenv("HEDDLE_SIM_MUTATE_LIST"); path != nullptr && *path != 0) {
      list_path_ = path;
      listing_ = true;
    }
  }
  ~Mutator() {
    if (list_path_.empty()) return;
    std::ofstream out(list_path_);
    for (const MutationSite& site : sites())
      for (const auto& [kind, name] : {std::pair{kMayDrop, ":drop"}, {kMayWeaken, ":weaken"}})
        if ((site.kinds & kind) != 0) out << site.file << ':' << site.line << '#' << site.what << name << '\n';
  }

  bool active() const { return listing_ || spec_.kind != Mutation::none; }
  void set(const MutationSpec& spec) { spec_ = spec; }
  void list(bool on) {
    listing_ = on;
    if (on) seen_.clear();
  }

  Mutation at(const Site& site, unsigned kinds) {
    std::lock_guard lock(mutex_);
    if (listing_) remember(site, kinds);
    if (spec_.kind == Mutation::none || site.line != spec_.line || !path_ends_with(site.file, spec_.file)) return Mutation::none;
    if (!spec_.what.empty() && spec_.what != site.what) return Mutation::none;
    return (kinds & (spec_.kind == Mutation::drop ? kMayDrop : kMayWeaken)) != 0 ? spec_.kind : Mutation::none;
  }

  std::vector<MutationSite> sites() const {
    std::vector<MutationSite> sorted = seen_;
    std::sort(sorted.begin(), sorted.end(),
              [](const MutationSite& a, const MutationSite& b) { return std::tie(a.file, a.line, a.what) < std::tie(b.file, b.line, b.what); });
    return sorted;
  }

 private:
  void remember(const Site& site, unsigned kinds) {
    const std::string_view file = short_path(site.file);
    for (MutationSite& known : seen_) {
      if (known.line != site.line || known.what != site.what || known.file != file) continue;
      known.kinds |= kinds;
      return;
    }
    seen_.push_back({std::string(file), site.line, site.what, kinds});
  }

  std::mutex mutex_;
  MutationSpec spec_;
  bool listing_ = false;
  std::string list_path_;
  std::vector<MutationSite> seen_;
};

Mutator& the_mutator() {
  static Mutator mutator;
  return mutator;
}

}  // namespace

bool mutating = [] {
  const char* one = std::getenv("HEDDLE_SIM_MUTATE");
  const char* list = std::getenv("HEDDLE_SIM_MUTATE_LIST");
  return (one != nullptr && *one != 0) || (list != nullptr && *list != 0);
}();

MutationSpec parse_mutation(std::string_view text) {
  const size_t last = text.rfind(':');
  // An operation's name may hold colons (cp.async.bulk.shared::cluster), a file's hardly.
  const std::string_view place = text.substr(0, std::min(last, text.find('#')));
  const size_t middle = last == std::string_view::npos ? last : place.rfind(':');
  HEDDLE_CHECK(middle != std::string_view::npos && middle > 0, "sim", "a mutation is file:line[#operation]:drop or ...:weaken, not '", text, "'");
  MutationSpec spec;
  spec.file = text.substr(0, middle);
  std::string_view line = text.substr(middle + 1, last - middle - 1);
  if (const size_t hash = line.find('#'); hash != std::string_view::npos) {
    spec.what = line.substr(hash + 1);
    line = line.substr(0, hash);
  }
  spec.line = positive(line, text);
  const std::string_view kind = text.substr(last + 1);
  HEDDLE_CHECK(kind == "drop" || kind == "weaken", "sim", "a mutation drops or weakens, not '", kind, "'");
  spec.kind = kind == "drop" ? Mutation::drop : Mutation::weaken;
  return spec;
}

Mutation mutation_at_slow(const Site& site, unsigned kinds) {
  return the_mutator().at(site, kinds);
}

void mutate(const MutationSpec& spec) {
  the_mutator().set(spec);
  mutating = the_mutator().active();
}

void mutate_none() {
  mutate(MutationSpec{});
}

void list_mutations(bool on) {
  the_mutator().list(on);
  mutating = the_mutator().active();
}

std::vector<MutationSite> mutation_sites() {
  return the_mutator().sites();
}

}  // namespace heddle::sim
