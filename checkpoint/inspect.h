// `heddle inspect PATH [--verify] [--digest] [--details]` for checkpoints and safetensors files: what is in it, whether it is whole. Reads only;
// takes no lock.
#pragma once

#include <iosfwd>
#include <string>

#include "core/io/file_system.h"

namespace heddle {

enum class Inspectable {
  run,          // a run directory: inc/ and ckpt/
  checkpoint,   // a directory with a MANIFEST, or that MANIFEST
  safetensors,  // a file whose first bytes are a safetensors header
  other         // none of these; the caller may know more kinds (token shards, tokenizers)
};
Inspectable recognize(const std::string& path, FileSystem& fs = real_file_system());

struct InspectOptions {
  bool verify = false;   // read every byte and compare every hash
  bool digest = false;   // print step and digest() and nothing else (not for a plain safetensors file, which has no step: its digest alone)
  bool details = false;  // of a run: every checkpoint, and all that the newest holds
};

// Writes a table to `out`. A run: a screenful, its newest checkpoints with their state and a summary of the newest one. A checkpoint: in full. False
// when --verify found damage, which `out` names; Error(bad_data) when there is nothing readable, Error(usage) for Inspectable::other.
bool inspect(const std::string& path, const InspectOptions& options, std::ostream& out, FileSystem& fs = real_file_system());

}  // namespace heddle
