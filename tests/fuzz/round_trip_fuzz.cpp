// The bytes of the input drive an object to be saved; what is loaded must be the same, to the last bit. The first byte chooses what is saved.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "checkpoint/checkpoints.h"
#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"
#include "core/io/safetensors_file.h"
#include "data/dataset.h"
#include "data/file.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "parallel/control.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u16, DType::u8};

// Valid UTF-8 of every length, with what JSON must escape.
std::string draw_text(Bytes& in, size_t most) {
  constexpr std::string_view kPieces[] = {"\"",           "\\", "\n", "\t", "\x01", "\x7f", "/", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\xa7\xb5",
                                          "\xed\x9f\xbf", " "};
  std::string text;
  for (size_t i = in.below(most + 1); i > 0; --i) {
    const uint8_t b = in.byte();
    if (b < 0xC0) {
      text += static_cast<char>('0' + b % 75);  // '0' to 'z'
    } else {
      text += kPieces[b % std::size(kPieces)];
    }
  }
  return text;
}

std::string draw_name(Bytes& in, size_t number) {
  constexpr std::string_view kLetters = "abcXYZ019_.-/";
  std::string name = concat("t", number, ".");
  for (size_t i = in.below(12); i > 0; --i) name += kLetters[in.below(kLetters.size())];
  return name;
}

// A tensor and room to load it into.
struct Held {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::vector<std::byte> saved, loaded;

  View view(std::vector<std::byte>& bytes) const {
    View v;
    v.data = bytes.data();
    v.dtype = dtype;
    v.rank = static_cast<int>(shape.size());
    int64_t stride = 1;
    for (size_t i = shape.size(); i-- > 0;) {
      v.shape[i] = shape[i];
      v.stride[i] = stride;
      stride *= shape[i];
    }
    return v;
  }
};

std::vector<Held> draw_tensors(Bytes& in, size_t most) {
  std::vector<Held> tensors(in.below(most + 1));
  for (size_t i = 0; i < tensors.size(); ++i) {
    Held& t = tensors[i];
    t.name = draw_name(in, i);
    t.dtype = kTypes[in.below(std::size(kTypes))];
    for (size_t axis = in.below(5); axis > 0; --axis) t.shape.push_back(static_cast<int64_t>(in.below(7)));
    const int64_t bytes = volume(whole_box(t.shape)) * size_of(t.dtype);
    t.saved.resize(static_cast<size_t>(bytes));
    uint32_t state = static_cast<uint32_t>(in.number(2));
    for (std::byte& b : t.saved) b = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
    t.loaded.assign(t.saved.size(), std::byte{0x5A});
  }
  return tensors;
}

void require_loaded(const std::vector<Held>& tensors, std::string_view what) {
  for (const Held& t : tensors) require(t.loaded == t.saved, what, ": tensor ", t.name, " comes back different");
}

void safetensors(Bytes& in) {
  std::vector<Held> tensors = draw_tensors(in, 8);
  std::map<std::string, std::string> metadata;
  for (size_t i = in.below(4); i > 0; --i) metadata[draw_text(in, 20)] = draw_text(in, 40);
  const std::string path = scratch_folder() + "/x.safetensors";
  NamedViews from, to;
  for (Held& t : tensors) {
    t.name += draw_text(in, 8);  // any text may name a tensor
    from.emplace_back(t.name, t.view(t.saved));
    to.emplace_back(t.name, t.view(t.loaded));
  }
  save_safetensors(path, from, metadata);
  std::reverse(to.begin(), to.end());
  const auto loaded = load_safetensors(path, to);
  metadata.emplace("format", "pt");
  require(loaded == metadata, "safetensors: the metadata comes back different");
  require_loaded(tensors, "safetensors");
  if (to.empty()) return;
  to.pop_back();
  require(is_refused(ExitCode::bad_data, [&] { load_safetensors(path, to); }), "safetensors: an unexpected tensor is not noticed");
}

void cut_out(const Held& t, const Box& box, std::vector<std::byte>& out) {
  const auto unit = static_cast<size_t>(size_of(t.dtype));
  out.resize(static_cast<size_t>(volume(box)) * unit);
  if (out.empty()) return;
  const Box whole = whole_box(t.shape);
  for_each_run(box, whole, box, [&](int64_t a, int64_t b, int64_t n) {
    std::memcpy(out.data() + static_cast<size_t>(b) * unit, t.saved.data() + static_cast<size_t>(a) * unit, static_cast<size_t>(n) * unit);
  });
}

void checkpoint(Bytes& in) {
  std::vector<Held> tensors = draw_tensors(in, 6);
  StateDict saved, loaded;
  for (Held& t : tensors) {
    saved.tensors.push_back({t.name, t.view(t.saved), t.shape, whole_box(t.shape)});
    loaded.tensors.push_back({t.name, t.view(t.loaded), t.shape, whole_box(t.shape)});
  }
  saved.scalars = draw_text(in, 60);
  const std::string config = draw_text(in, 60), run = scratch_folder() + "/run";
  const uint64_t step = in.number(1 + static_cast<int>(in.below(8))) >> 2;  // names of checkpoints hold numbers up to 2^62
  std::filesystem::remove_all(run);
  const auto comm = local_control();
  {
    CheckpointOptions options;
    options.environment = draw_text(in, 20);
    options.log = [](const std::string&) {};
    Checkpoints checkpoints(run, *comm, options);
    checkpoints.prepare(saved);
    checkpoints.save(step, saved, config);
    checkpoints.wait();
  }
  const Checkpoints::Loaded found = read_checkpoint(run, loaded);
  require(found.step == step && found.scalars == saved.scalars && found.config == config, "checkpoint: step, scalars or configuration changed");
  require_loaded(tensors, "checkpoint");
  require(loaded.scalars == saved.scalars && digest(run) == digest(saved) && digest(loaded) == digest(saved), "checkpoint: the digests differ");

  // Any part of any tensor.
  FileSystem& fs = real_file_system();
  const Handle directory(fs, fs.open_root((run + "/ckpt").c_str()));
  const CheckpointReader reader(fs, directory.get(), concat("s", step, "-i1").c_str(), run, CheckpointId{step, 1});
  reader.verify(0);
  std::vector<std::byte> part, expected;
  for (const Held& t : tensors) {
    Box box;
    for (const int64_t n : t.shape) {
      const auto begin = static_cast<int64_t>(in.below(static_cast<uint64_t>(n) + 1));
      box.push_back({begin, begin + static_cast<int64_t>(in.below(static_cast<uint64_t>(n - begin) + 1))});
    }
    cut_out(t, box, expected);
    part.assign(expected.size(), std::byte{0});
    const Wanted wanted{reader.manifest().find(t.name), box, part.data()};
    require(wanted.tensor != nullptr, "checkpoint: ", t.name, " is not in the manifest");
    reader.read({&wanted, 1});
    require(part == expected, "checkpoint: ", box_text(box), " of ", t.name, " comes back different");
  }
}

// Cuts a box in two, again and again: a tiling no layout would make.
void cut(Bytes& in, const Box& box, int depth, std::vector<Box>& out) {
  if (depth == 0 || box.empty() || in.below(4) == 0) {
    out.push_back(box);
    return;
  }
  const size_t axis = in.below(box.size());
  const auto at = box[axis].begin + static_cast<int64_t>(in.below(static_cast<uint64_t>(box[axis].size()) + 1));
  Box low = box, high = box;
  low[axis].end = high[axis].begin = at;
  cut(in, low, depth - 1, out);
  cut(in, high, depth - 1, out);
}

void manifest(Bytes& in) {
  Manifest m;
  m.step = in.number(8) >> 2;  // as all numbers that become names
  m.incarnation = in.number(4);
  m.fold = in.number(8);
  m.environment = draw_text(in, 30);
  m.config = draw_text(in, 30);
  m.scalars = draw_text(in, 30);
  m.shards.resize(1 + in.below(5));
  m.tensors.resize(in.below(6));
  std::string text;
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    SavedTensor& t = m.tensors[i];
    t.name = draw_name(in, i);
    t.dtype = kTypes[in.below(std::size(kTypes))];
    for (size_t axis = in.below(6); axis > 0; --axis) t.global.push_back(static_cast<int64_t>(in.below(200)));
    std::vector<Box> boxes;
    cut(in, whole_box(t.global), 4, boxes);
    for (const Box& box : boxes) {
      SavedShard& shard = m.shards[in.below(m.shards.size())];
      t.pieces.push_back({static_cast<uint64_t>(&shard - m.shards.data()), shard.bytes, box});
      shard.bytes += static_cast<uint64_t>(volume(box) * size_of(t.dtype)) + in.below(3);
    }
    if (i > 0) text += ',';
    append_tensor(text, t);
  }
  for (SavedShard& shard : m.shards) {
    if (shard.bytes > uint64_t{64} << 20) return;  // its checksums alone would be long
    for (uint8_t& b : shard.sha256) b = in.byte();
    shard.crc32c.resize(static_cast<size_t>(block_count(shard.bytes)));
    for (uint32_t& crc : shard.crc32c) crc = static_cast<uint32_t>(in.number(4));
  }
  const ManifestParts parts{m.step, m.incarnation, m.fold, m.environment, m.config, m.scalars, &m.shards, text};
  Sha256 hash;
  std::string file;
  write_manifest(parts, hash, file);
  require(file.size() <= manifest_capacity(parts), "manifest: longer than manifest_capacity() says");
  const Manifest again = parse_manifest(file, "written");
  require(again.step == m.step && again.incarnation == m.incarnation && again.fold == m.fold, "manifest: a number changed");
  require(again.environment == m.environment && again.config == m.config && again.scalars == m.scalars, "manifest: a text changed");
  require(again.shards.size() == m.shards.size() && again.tensors.size() == m.tensors.size(), "manifest: shards or tensors were lost");
  for (size_t i = 0; i < m.shards.size(); ++i) {
    require(
        again.shards[i].bytes == m.shards[i].bytes && again.shards[i].sha256 == m.shards[i].sha256 && again.shards[i].crc32c == m.shards[i].crc32c,
        "manifest: shard ", i, " changed");
  }
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    const SavedTensor &a = again.tensors[i], &b = m.tensors[i];
    require(a.name == b.name && a.dtype == b.dtype && a.global == b.global && a.pieces.size() == b.pieces.size(), "manifest: ", b.name, " changed");
    for (size_t p = 0; p < a.pieces.size(); ++p) {
      require(a.pieces[p].shard == b.pieces[p].shard && a.pieces[p].offset == b.pieces[p].offset && a.pieces[p].box == b.pieces[p].box,
              "manifest: piece ", p, " of ", b.name, " changed");
    }
  }
  // One piece less, and the tensor is no longer whole.
  for (size_t i = 0; i < m.tensors.size(); ++i) {
    const auto filled = std::find_if(m.tensors[i].pieces.begin(), m.tensors[i].pieces.end(), [](const SavedPiece& p) { return volume(p.box) > 0; });
    if (filled == m.tensors[i].pieces.end()) continue;
    m.tensors[i].pieces.erase(filled);
    text.clear();
    for (size_t j = 0; j < m.tensors.size(); ++j) {
      if (j > 0) text += ',';
      append_tensor(text, m.tensors[j]);
    }
    write_manifest({m.step, m.incarnation, m.fold, m.environment, m.config, m.scalars, &m.shards, text}, hash, file);
    require(is_refused(ExitCode::bad_data, [&] { parse_manifest(file, "hole"); }), "manifest: ", m.tensors[i].name,
            " with a piece missing is accepted");
    break;
  }
}

void shard(Bytes& in) {
  const int64_t vocab = 1 + static_cast<int64_t>(in.number(in.byte() % 2 == 0 ? 2 : 3));
  std::vector<int32_t> tokens;
  while (!in.done()) tokens.push_back(static_cast<int32_t>(in.number(3) % static_cast<uint64_t>(vocab)));
  const std::string path = scratch_folder() + "/x.bin";
  std::string hash;
  {
    ShardWriter writer(path, vocab);
    const std::span<const int32_t> all(tokens);
    const size_t first = tokens.size() / 3;
    writer.append(all.first(first));
    writer.append(all.subspan(first));
    require(writer.tokens() == static_cast<int64_t>(tokens.size()), "shard: the writer counts ", writer.tokens());
    const int32_t beyond[] = {static_cast<int32_t>(vocab)};
    hash = writer.finish();
    ShardWriter other(path + "2", vocab);
    require(is_refused(ExitCode::runtime, [&] { other.append(beyond); }), "shard: a token beyond the vocabulary is written");
  }
  require(!std::filesystem::exists(path + "2"), "shard: a writer that did not finish left a file");
  const ShardReader reader(path);
  require(reader.tokens() == static_cast<int64_t>(tokens.size()), "shard: ", reader.tokens(), " tokens of ", tokens.size());
  std::vector<int32_t> again(tokens.size());
  reader.read(0, again);
  require(again == tokens, "shard: the tokens come back different");
  require(hash == reader.sha256(), "shard: the hash is not that of the file");
  reader.check_tokens(vocab);
}

void tokenizer(Bytes& in) {
  TokenizerSpec spec = Tokenizer::bytes().spec();
  spec.split = static_cast<SplitRule>(in.below(4));
  spec.ignore_merges = in.below(2) == 1;
  std::map<std::string, int32_t> ids;
  for (int32_t b = 0; b < 256; ++b) ids[spec.tokens[static_cast<size_t>(b)]] = b;
  std::set<std::pair<int32_t, int32_t>> merged;
  for (size_t i = in.below(40); i > 0; --i) {
    const auto count = static_cast<uint64_t>(spec.tokens.size());
    const auto a = static_cast<int32_t>(in.below(count)), b = static_cast<int32_t>(in.below(count));
    if (a == spec.eot || b == spec.eot || !merged.insert({a, b}).second) continue;
    const std::string bytes = spec.tokens[static_cast<size_t>(a)] + spec.tokens[static_cast<size_t>(b)];
    if (bytes.size() > 60) continue;
    if (ids.emplace(bytes, static_cast<int32_t>(spec.tokens.size())).second) spec.tokens.push_back(bytes);
    spec.merges.push_back({a, b});
  }
  const Tokenizer original(spec);
  const Tokenizer again = Tokenizer::parse(original.to_json(), "written");
  require(again.fingerprint() == original.fingerprint(), "tokenizer: the fingerprint changed");
  require(again.spec().tokens == spec.tokens && again.spec().merges == spec.merges, "tokenizer: tokens or merges changed");
  const std::vector<int32_t> encoded = again.encode(in.rest());
  require(encoded == original.encode(in.rest()) && again.decode(encoded) == in.rest(), "tokenizer: text comes back different");
}

void dataset(Bytes& in) {
  const auto draw_hash = [&] {
    Sha256Digest digest{};
    for (uint8_t& b : digest) b = in.byte();
    return hex(digest);
  };
  DatasetInfo info;
  info.tokenizer = "tokenizer.json";
  info.tokenizer_fingerprint = draw_hash();
  info.vocab = 1 + static_cast<int64_t>(in.number(4) % INT32_MAX);
  info.eot = static_cast<int32_t>(in.number(4) % static_cast<uint64_t>(info.vocab));
  info.eot_position = in.below(2) == 0 ? EotPosition::prepend : EotPosition::append;
  info.shards.resize(in.below(5));
  for (size_t i = 0; i < info.shards.size(); ++i) {
    DatasetInfo::Shard& s = info.shards[i];
    s.file = concat("x", i, "\xc3\xa9\".bin");
    s.split = in.below(2) == 0 ? "train" : "val";
    s.tokens = static_cast<int64_t>(in.number(4) % INT32_MAX);
    s.bytes = static_cast<int64_t>(in.number(8) >> 1);
    s.documents = static_cast<int64_t>(in.number(4) % INT32_MAX);
    s.sha256 = draw_hash();
  }
  const DatasetInfo again = DatasetInfo::parse(info.to_json(), "written");
  require(again.to_json() == info.to_json() && again.shards.size() == info.shards.size(), "dataset: it is written differently");
  require(again.vocab == info.vocab && again.eot == info.eot && again.tokenizer_fingerprint == info.tokenizer_fingerprint,
          "dataset: a field changed");
  for (size_t i = 0; i < info.shards.size(); ++i) {
    const DatasetInfo::Shard &a = again.shards[i], &b = info.shards[i];
    require(
        a.file == b.file && a.split == b.split && a.tokens == b.tokens && a.bytes == b.bytes && a.documents == b.documents && a.sha256 == b.sha256,
        "dataset: shard ", i, " changed");
  }
}

}  // namespace

void run_target(std::string_view input) {
  constexpr void (*kObjects[])(Bytes&) = {safetensors, checkpoint, manifest, shard, tokenizer, dataset};
  Bytes in(input);
  kObjects[in.below(std::size(kObjects))](in);
  outcome() = {};
  outcome().accepted = true;  // whatever the bytes, the object is valid
}

}  // namespace heddle::fuzz
