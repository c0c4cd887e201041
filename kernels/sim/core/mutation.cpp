#include "kernels/sim/core/mutation.h"
#include "kernels/sim/core/machine_internal.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
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

// 0: not a positive number.
int positive(std::string_view digits) {
  int value = 0;
  bool good = !digits.empty() && digits.size() < 9;
  for (const char c : digits) {
    good = good && c >= '0' && c <= '9';
    value = value * 10 + (c - '0');
  }
  return good ? value : 0;
}

// Returns what is wrong with the text; empty: nothing.
std::string parse(std::string_view text, MutationSpec& spec) {
  const std::string wrong = concat("a mutation is file:line[#operation]:drop, ...:weaken or ...:elect, not '", text, "'");
  const size_t last = text.rfind(':');
  // An operation's name may hold colons (cp.async.bulk.shared::cluster), a file's hardly.
  const std::string_view place = text.substr(0, std::min(last, text.find('#')));
  const size_t middle = last == std::string_view::npos ? last : place.rfind(':');
  if (middle == std::string_view::npos || middle == 0) return wrong;
  spec.file = text.substr(0, middle);
  std::string_view line = text.substr(middle + 1, last - middle - 1);
  if (const size_t hash = line.find('#'); hash != std::string_view::npos) {
    spec.what = line.substr(hash + 1);
    line = line.substr(0, hash);
  }
  spec.line = positive(line);
  if (spec.line == 0) return wrong;
  const std::string_view kind = text.substr(last + 1);
  if (kind != "drop" && kind != "weaken" && kind != "elect") return concat("a mutation drops, weakens or elects, not '", kind, "'");
  spec.kind = kind == "weaken" ? Mutation::weaken : Mutation::drop;
  spec.elect = kind == "elect";
  return "";
}

// A fence, which a thread executes for itself, in another lane than a warp's first.
bool may_elect(const Site& site) {
  const std::string_view what = site.what;
  return current_thread->index.x % kWarpSize != 0 && (what.rfind("fence.", 0) == 0 || what.rfind("__threadfence", 0) == 0);
}

// A variable's value; empty where it is not set.
std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

// Reads the environment once; writes the list, and what became of the mutation, when the process ends.
class Mutator {
 public:
  Mutator() : asked_for_(variable("HEDDLE_SIM_MUTATE")), list_path_(variable("HEDDLE_SIM_MUTATE_LIST")) {
    listing_ = !list_path_.empty();
    if (asked_for_.empty()) return;
    MutationSpec spec;
    wrong_ = parse(asked_for_, spec);
    if (wrong_.empty()) spec_ = spec;
  }
  ~Mutator() {
    if (!asked_for_.empty()) tell_what_became_of_it();
    if (!list_path_.empty()) write_list();
  }

  void require_good() {
    refused_ = !wrong_.empty();
    HEDDLE_CHECK(wrong_.empty(), "sim", "HEDDLE_SIM_MUTATE: ", wrong_);
  }
  bool active() const { return listing_ || spec_.kind != Mutation::none; }
  void set(const MutationSpec& spec) {
    spec_ = spec;
    asked_for_.clear();
  }
  void list(bool on) {
    listing_ = on;
    if (on) seen_.clear();
  }

  Mutation at(const Site& site, unsigned kinds) {
    std::lock_guard lock(mutex_);
    if (may_elect(site)) kinds |= kMayElect;
    if (listing_) remember(site, kinds);
    if (spec_.kind == Mutation::none || site.line != spec_.line || !path_ends_with(site.file, spec_.file)) return Mutation::none;
    if (!spec_.what.empty() && spec_.what != site.what) return Mutation::none;
    ran_ = true;
    if ((kinds & (spec_.elect ? kMayElect : spec_.kind == Mutation::drop ? kMayDrop : kMayWeaken)) == 0) return Mutation::none;
    applied_ = true;
    return spec_.kind;
  }

  std::vector<MutationSite> sites() const {
    std::vector<MutationSite> sorted = seen_;
    std::sort(sorted.begin(), sorted.end(),
              [](const MutationSite& a, const MutationSite& b) { return std::tie(a.file, a.line, a.what) < std::tie(b.file, b.line, b.what); });
    return sorted;
  }

 private:
  void tell_what_became_of_it() const {
    const char* name = asked_for_.c_str();
    if (!wrong_.empty()) {
      if (!refused_) std::fprintf(stderr, "[sim] HEDDLE_SIM_MUTATE: %s\n", wrong_.c_str());
    } else if (!ran_) {
      std::fprintf(stderr, "[sim] HEDDLE_SIM_MUTATE=%s: that operation never ran\n", name);
    } else if (!applied_) {
      std::fprintf(stderr, "[sim] HEDDLE_SIM_MUTATE=%s: that operation ran, but cannot be mutated so\n", name);
    }
  }

  void write_list() const {
    std::ofstream out(list_path_);
    for (const MutationSite& site : sites())
      for (const auto& [kind, name] : {std::pair{kMayDrop, ":drop"}, {kMayWeaken, ":weaken"}, {kMayElect, ":elect"}})
        if ((site.kinds & kind) != 0) out << site.file << ':' << site.line << '#' << site.what << name << '\n';
    if (!out.flush())
      std::fprintf(stderr, "[sim] HEDDLE_SIM_MUTATE_LIST=%s: the list cannot be written: %s\n", list_path_.c_str(), std::strerror(errno));
  }

  void remember(const Site& site, unsigned kinds) {
    const std::string_view file = path_in_tree(site.file);
    for (MutationSite& known : seen_) {
      if (known.line != site.line || known.what != site.what || known.file != file) continue;
      known.kinds |= kinds;
      return;
    }
    seen_.push_back({std::string(file), site.line, site.what, kinds});
  }

  std::mutex mutex_;
  MutationSpec spec_;
  std::string asked_for_, wrong_;  // the variable, until a test sets another mutation, and what is wrong with it
  bool ran_ = false, applied_ = false, refused_ = false;
  std::string list_path_;
  bool listing_ = false;
  std::vector<MutationSite> seen_;
};

Mutator& the_mutator() {
  static Mutator mutator;
  return mutator;
}

}  // namespace

// Made here, if the environment asks for anything: it has something to say at the end even when no kernel runs.
bool mutating = [] {
  const bool asked = !variable("HEDDLE_SIM_MUTATE").empty() || !variable("HEDDLE_SIM_MUTATE_LIST").empty();
  return asked && the_mutator().active();
}();

MutationSpec parse_mutation(std::string_view text) {
  MutationSpec spec;
  const std::string wrong = parse(text, spec);
  HEDDLE_CHECK(wrong.empty(), "sim", wrong);
  return spec;
}

void require_good_mutation_variable() {
  the_mutator().require_good();
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
