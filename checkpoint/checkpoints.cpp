#include "checkpoint/checkpoints.h"

#include <algorithm>
#include <unordered_map>

#include "checkpoint/fold.h"
#include "checkpoint/loading.h"
#include "checkpoint/reader.h"
#include "checkpoint/save_writer.h"
#include "checkpoint/selection.h"
#include "checkpoint/words.h"
#include "kernels/api/printable.h"

namespace heddle {

struct Checkpoints::Impl {
  CheckpointOptions options;
  std::unique_ptr<Control> control;  // used for nothing else
  std::unique_ptr<RunDirectory> run;
  std::unique_ptr<SaveWriter> writer;
  uint64_t incarnation = 0;
  std::unique_ptr<CheckpointReader> found;
  bool searched = false;  // find_newest() has run in this incarnation
  bool based = false;     // inc/<n>.base is written
  bool counts = false;    // something was saved or gone back on: this start is part of the run's history

  bool first() const { return control->rank() == 0; }
  void log(const std::string& line) const {
    if (options.log) options.log(line);
  }
  void claim();
  std::vector<Candidate> candidates(std::vector<Kept>& kept);
  std::string try_candidate(const CheckpointId& id);
  void write_base(const Base& base);
};

void Checkpoints::Impl::claim() {
  const auto texts = agree(*control, [&] { return first() ? std::to_string(run->claim_incarnation()) : std::string(); });
  incarnation = *parse_number(texts[0]);
  searched = based = false;
  found.reset();
}

Checkpoints::Checkpoints(std::filesystem::path path, Control& comm, CheckpointOptions options) : impl_(std::make_unique<Impl>()) {
  impl_->options = std::move(options);
  impl_->control = comm.split(0, comm.rank());
  // Rank 0 makes the directories, then the others open them.
  for (int turn = 0; turn < 2; ++turn) {
    agree(*impl_->control, [&] {
      if (impl_->first() == (turn == 0)) impl_->run = std::make_unique<RunDirectory>(*impl_->options.fs, path.string(), turn == 0);
      if (impl_->first() && turn == 0) {
        impl_->run->take_lock();
        impl_->run->sweep();
      }
      return std::string();
    });
  }
  impl_->claim();
  impl_->writer = std::make_unique<SaveWriter>(*impl_->run, *impl_->control, impl_->options);
}

Checkpoints::~Checkpoints() {
  impl_->writer.reset();
  if (impl_->first() && !impl_->counts) impl_->run->give_back_incarnation(impl_->incarnation);
}

uint64_t Checkpoints::incarnation() const {
  return impl_->incarnation;
}

// Rank 0 looks, all ranks learn: newest first.
std::vector<Candidate> Checkpoints::Impl::candidates(std::vector<Kept>& kept) {
  const auto texts = agree(*control, [&] {
    std::string text;
    if (!first()) return text;
    const RunDirectory::Listing listing = run->list();
    for (const std::string& name : listing.foreign) log(concat(run->path(), "/ckpt/", name, " is not heddle's and is ignored"));
    for (const CheckpointId& id : listing.unfinished) {
      log(concat(run->path_of(id), " was never committed (no MANIFEST) and is moved to quarantine/", run->quarantine(id)));
    }
    const auto bases = run->read_bases();
    for (const Candidate& c : order_candidates(listing.committed, bases)) {
      append_number(text, c.id.step, ' ');
      append_number(text, c.id.incarnation, ' ');
      text += c.dead ? "dead\n" : "live\n";
    }
    return text;
  });
  std::vector<Candidate> out;
  for (Words words(texts[0]); !words.done();) {
    const auto step = words.number<uint64_t>(), incarnation = words.number<uint64_t>();
    out.push_back({{step, incarnation}, words.word() == "dead"});
  }
  for (const Candidate& c : out) kept.push_back({c.id, 1, false, c.dead, false});
  return out;
}

// Empty: verified on all ranks and open in `found`. Otherwise what is wrong with it.
std::string Checkpoints::Impl::try_candidate(const CheckpointId& id) {
  const auto texts = agree(*control, [&]() -> std::string {
    try {
      found = std::make_unique<CheckpointReader>(*options.fs, run->checkpoints(), text_of(id).c_str(), run->path_of(id), id);
      const auto ranks = static_cast<uint64_t>(control->size());
      for (auto i = static_cast<uint64_t>(control->rank()); i < found->manifest().shards.size(); i += ranks) found->verify(i);
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data) throw;  // that it could not be read now says nothing about it
      return e.what();
    }
    return {};
  });
  for (const std::string& text : texts) {
    if (text.empty()) continue;
    found.reset();
    return text;
  }
  return {};
}

void Checkpoints::Impl::write_base(const Base& base) {
  agree(*control, [&] {
    if (first()) run->write_base(incarnation, base);
    return std::string();
  });
  based = true;
}

std::optional<Checkpoints::Loaded> Checkpoints::find_newest(Resume resume, uint64_t at_most) {
  Impl& m = *impl_;
  m.writer->drain();
  HEDDLE_CHECK(!m.based, "checkpoint", "incarnation ", m.incarnation, " has begun; roll_back() first");
  m.found.reset();
  m.counts = m.counts || at_most < UINT64_MAX;
  std::vector<Kept> kept;
  const std::vector<Candidate> all = m.candidates(kept);
  if (resume == Resume::never && !all.empty()) {
    fail("checkpoint",
         concat(m.run->path(), " holds ", counted(all.size(), "checkpoint"), ", the newest ", text_of(all[0].id),
                "; choose another --out, or --resume auto to go on"),
         ExitCode::usage);
  }
  std::vector<CheckpointId> damaged;
  std::string reasons;
  const Candidate* chosen = nullptr;
  for (const Candidate& c : all) {
    if (c.dead) {
      if (m.first()) m.log(concat(m.run->path_of(c.id), " is passed over: a later start went on from an earlier step"));
      continue;
    }
    if (c.id.step > at_most) continue;
    const std::string wrong = m.try_candidate(c.id);
    if (wrong.empty()) {
      chosen = &c;
      break;
    }
    damaged.push_back(c.id);
    reasons += "\n  " + wrong;
    if (m.first()) m.log(concat(m.run->path_of(c.id), " is passed over: ", wrong));
  }
  if (chosen == nullptr) {
    // Damaged ones stay where they are, so that the next start finds them too and does not begin from scratch beside them.
    if (!damaged.empty()) {
      fail("checkpoint",
           concat(damaged.size() == 1 ? "the only checkpoint" : concat("none of the ", damaged.size(), " checkpoints"), " in ", m.run->path(),
                  damaged.size() == 1 ? " does not verify:" : " verifies:", reasons,
                  "\n  restore one from a copy, or move ckpt/ away to start from scratch"),
           ExitCode::bad_data);
    }
    if (resume == Resume::must) fail("checkpoint", concat(m.run->path(), " holds no checkpoint to resume from"), ExitCode::bad_data);
  }
  const Manifest* const manifest = chosen != nullptr ? &m.found->manifest() : nullptr;
  agree(*m.control, [&] {
    if (!m.first()) return std::string();
    for (const CheckpointId& id : damaged) {
      m.log(concat(m.run->path_of(id), " is moved to quarantine/", m.run->quarantine(id)));
      std::erase_if(kept, [&](const Kept& k) { return k.id == id; });
    }
    const uint64_t base = chosen != nullptr ? chosen->id.step : 0;
    for (Kept& k : kept) {
      k.dead = k.dead || k.id.step > base;
      if (chosen != nullptr && k.id == chosen->id) k.verified = true;
      k.shards = m.run->count_shards(k.id);
    }
    m.writer->set_catalog(kept, m.run->leftovers());
    return std::string();
  });
  m.searched = true;
  if (chosen == nullptr) {
    m.write_base({});
    return std::nullopt;
  }
  return Loaded{manifest->step, manifest->scalars, manifest->config, manifest->environment};
}

void Checkpoints::check(std::span<const TensorIdentity> wanted, std::string_view prefix) const {
  HEDDLE_CHECK(impl_->found != nullptr, "checkpoint", "check() without a find_newest() that found something");
  check_tensors(*impl_->found, wanted, prefix);
}

void Checkpoints::load(StateDict& into) {
  Impl& m = *impl_;
  HEDDLE_CHECK(m.found != nullptr, "checkpoint", "load() without a find_newest() that found something");
  const Manifest& manifest = m.found->manifest();
  // What all ranks hold together must be what was saved: a rank may well hold no part of a small tensor.
  const Plan plan = make_plan(into, *m.control);
  agree(*m.control, [&] {
    std::vector<TensorIdentity> wanted;
    for (const SavedTensor& t : plan.tensors) wanted.push_back({t.name, t.dtype, t.global});
    check_tensors(*m.found, wanted, {});
    read_state(*m.found, into, {}, m.options.copy_in);
    return std::string();
  });
  // Every piece counted once, by its owner; the sum does not depend on the slicing.
  const auto sums = agree(*m.control, [&] {
    uint64_t sum = 0;
    for (const HeldPiece& held : plan.held) {
      if (held.owned) sum += fold_state_entry(into.tensors[held.entry], m.options.copy_out);
    }
    return std::to_string(sum);
  });
  uint64_t sum = 0;
  for (const std::string& text : sums) sum += std::stoull(text);
  if (sum != manifest.fold) {
    fail("checkpoint", concat(m.found->path(), ": the loaded state is not the saved one although every file verifies; report this with the manifest"),
         ExitCode::bad_data);
  }
  into.scalars = manifest.scalars;
  if (!m.based) m.write_base({{manifest.step, manifest.incarnation}, manifest.self});
}

void Checkpoints::roll_back() {
  impl_->writer->wait();
  impl_->counts = true;
  impl_->claim();
}

void Checkpoints::set_environment(std::string text) {
  impl_->writer->drain();
  impl_->options.environment = std::move(text);
}

void Checkpoints::prepare(const StateDict& like) {
  impl_->writer->prepare(like);
}

void Checkpoints::save(uint64_t step, const StateDict& state, const std::string& config, const std::function<void()>& copied) {
  Impl& m = *impl_;
  HEDDLE_CHECK(step < kNumberEnd, "checkpoint", "step ", step, " cannot be saved: steps are below 2^62");
  if (!m.searched) find_newest(Resume::never);
  HEDDLE_CHECK(m.based, "checkpoint", "save() before load(): a checkpoint was found and must be loaded first");
  m.counts = true;
  m.writer->save(m.incarnation, step, state, config, copied);
}

void Checkpoints::wait() {
  impl_->writer->wait();
}
void Checkpoints::pin(uint64_t step) {
  impl_->writer->pin(step, true);
}
void Checkpoints::unpin(uint64_t step) {
  impl_->writer->pin(step, false);
}
std::optional<std::string> Checkpoints::last_error() const {
  return impl_->writer->last_error();
}
SaveStats Checkpoints::stats() const {
  return impl_->writer->stats();
}

}  // namespace heddle
