// The folder that a data set is written into: locked, checked, and changed from the old set to the new one as a whole. Internal to prepare.
//
// Everything new is written and flushed in a hidden folder first. Then the old set's files move aside into it, the new ones take their places,
// dataset.json last, and only then the old ones go: a failure puts the old set back, and what a killed process left is put right by the next one.
// Only files that heddle made are ever moved or removed: those that dataset.json records, of the form of our names and with the size of their record,
// and a hidden folder that carries our mark.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace heddle {

// "name_train_000000.bin"
std::string shard_name(const std::string& name, const std::string& split, size_t index);

// Error(usage) naming both when an input is, by whatever path or link, a file that a data set written into `folder` would replace or remove.
void require_no_input_there(const std::string& folder, const std::vector<std::string>& inputs);

class OutputFolder {
 public:
  // Makes the folder when it is missing. Error(in_use) when another process writes there; Error(usage) naming a file of the shards' `name` that is
  // not of an earlier data set (a pattern would mix it in), or what bears the hidden folder's name without its mark.
  OutputFolder(const std::string& path, const std::string& name);
  ~OutputFolder();  // the hidden folder is gone, whatever happened, and so is a folder made here into which nothing came
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::string& work() const { return work_; }  // where to write
  // Error(usage) when a tokenizer.json lies there that is neither an earlier data set's nor the same tokenizer.
  void check_tokenizer(const Tokenizer& tokenizer);
  // The shards of `info` lie in work(): they, tokenizer.json and dataset.json become the data set.
  void commit(const DatasetInfo& info, const Tokenizer& tokenizer);

 private:
  void recover();
  void remove_work();
  void find_earlier(const std::string& name);
  void put_back(const std::vector<std::string>& fresh);
  std::string path_, work_, old_;
  bool made_ = false;
  int lock_ = -1;
  std::vector<std::string> earlier_;  // files of the earlier set, dataset.json first
  std::string earlier_tokenizer_;     // its fingerprint
};

}  // namespace heddle
