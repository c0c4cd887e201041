// The small files of a run directory, and how heddle knows its own.
#pragma once

#include <string>

namespace heddle {

// Nothing that a person keeps under one of the names is overwritten, and nothing is read or written through a link: Error(usage), naming the file and
// the cure, for a link, FIFO or folder of such a name, and, in a directory where no job has `begun` yet, for a file that does not begin as heddle's
// do. bad_batches.jsonl may be a person's: it is read line by line and only added to.
void require_own_files(const std::string& directory, bool begun);

}  // namespace heddle
