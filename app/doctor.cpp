#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <thread>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#include "app/command.h"
#include "core/device.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "kernels/api/printable.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"doctor", "",
                               "Prints what this machine and this build have: processor, memory, compiled-in parts, launcher, disk. Paste it into a "
                               "report. Lines that start with '!' are likely to hurt.",
                               ""};

class Report {
 public:
  void section(std::string_view title) { std::cout << title << "\n"; }
  void line(std::string_view what, const std::string& text) { std::cout << "  " << std::left << std::setw(20) << what << text << "\n"; }
  void warn(const std::string& text) { warnings_.push_back(text); }
  void finish() {
    for (const std::string& text : warnings_) std::cout << "! " << text << "\n";
    if (warnings_.empty()) std::cout << "nothing here looks wrong\n";
  }

 private:
  std::vector<std::string> warnings_;
};

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The value of "key : value" in a /proc file.
std::string proc_value(const std::string& path, std::string_view key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.find_first_not_of(" \t", key.size()) != colon) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

std::string gib(double bytes) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << bytes / (1024.0 * 1024 * 1024) << " GiB";
  return out.str();
}

double kib_value(std::string_view key) {
  return std::strtod(proc_value("/proc/meminfo", key).c_str(), nullptr) * 1024;
}

std::string isa_flags() {
  std::string found;
  const auto add = [&](std::string_view name, bool has) {
    if (has) found += concat(found.empty() ? "" : " ", name);
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  add("sse4.2", __builtin_cpu_supports("sse4.2"));
  add("avx", __builtin_cpu_supports("avx"));
  add("avx2", __builtin_cpu_supports("avx2"));
  add("fma", __builtin_cpu_supports("fma"));
  add("avx512f", __builtin_cpu_supports("avx512f"));
  add("avx512bw", __builtin_cpu_supports("avx512bw"));
  add("avx512vnni", __builtin_cpu_supports("avx512vnni"));
  std::istringstream flags(proc_value("/proc/cpuinfo", "flags"));  // names the compiler's builtin does not know everywhere
  for (std::string flag; flags >> flag;) {
    if (flag == "avx512_bf16" || flag == "amx_bf16" || flag == "f16c") add(flag, true);
  }
#elif defined(__aarch64__)
  const unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
  add("asimd", caps & (1UL << 1));
  add("asimdhp", caps & (1UL << 10));
  add("sve", caps & (1UL << 22));
  add("sve2", caps2 & (1UL << 1));
  add("bf16", caps2 & (1UL << 14));
#endif
  return found.empty() ? "unknown" : found;
}

// CPUs a cgroup v2 quota leaves, or 0 without one.
double cgroup_cpus() {
  std::istringstream in(first_line("/sys/fs/cgroup/cpu.max"));
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::strtod(quota.c_str(), nullptr) / period;
}

void report_processor(Report& report) {
  report.section("Processor");
  utsname system{};
  uname(&system);
  std::string model = proc_value("/proc/cpuinfo", "model name");
  report.line("model", concat(model.empty() ? "unknown" : model, " (", system.machine, ")"));
  report.line("instructions", isa_flags());
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int bound = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 0;
  const double quota = cgroup_cpus();
  report.line("logical CPUs", concat(std::thread::hardware_concurrency(), ", this process may use ", bound,
                                     quota > 0 ? concat(", container quota ", quota) : std::string()));
#if defined(_OPENMP)
  const int threads = omp_get_max_threads();
  report.line("OpenMP threads", std::to_string(threads));
  if (bound > 0 && threads > bound)
    report.warn(concat("OpenMP would start ", threads, " threads on ", counted(bound, "CPU"), ": set OMP_NUM_THREADS or --threads"));
  if (quota > 0 && threads > quota + 0.5) {
    report.warn(concat("OpenMP would start ", threads, " threads on a quota of ", quota, " CPUs: set OMP_NUM_THREADS or --threads"));
  }
#endif
}

void report_memory(Report& report) {
  report.section("Memory and disk");
  const double total = kib_value("MemTotal"), available = kib_value("MemAvailable");
  report.line("memory", concat(gib(total), ", available ", gib(available)));
  const std::string limit = first_line("/sys/fs/cgroup/memory.max");
  if (!limit.empty() && limit != "max") report.line("container limit", gib(std::strtod(limit.c_str(), nullptr)));
  if (available > 0 && available < 1024.0 * 1024 * 1024) report.warn(concat("only ", gib(available), " of memory is available"));
  const auto disk = [&](const char* what, const std::filesystem::path& path) {
    std::error_code error;
    const auto space = std::filesystem::space(path, error);
    if (error) return report.line(what, concat(path.string(), ": ", error.message()));
    report.line(what, concat(path.string(), ": ", gib(static_cast<double>(space.available)), " free"));
    if (space.available < (uintmax_t{1} << 30)) report.warn(concat("less than 1 GiB free in ", path.string(), ": checkpoints need room for three"));
  };
  std::error_code error;
  disk("working directory", std::filesystem::current_path(error));
  const char* tmp = std::getenv("TMPDIR");
  disk("temporary files", tmp && *tmp ? tmp : "/tmp");
}

void report_build(Report& report) {
  report.section("Build");
  report.line("version", version_text());
  for (const auto& [part, have, without] : std::initializer_list<std::tuple<const char*, bool, const char*>>{
           {"CUDA", HEDDLE_HAVE_CUDA, "no: CPU only"},
           {"NCCL", HEDDLE_HAVE_NCCL, "no: one GPU only"},
           {"MPI", HEDDLE_HAVE_MPI, "no: one process only"},
           {"oneDNN", HEDDLE_HAVE_ONEDNN, "no: matmul runs on Eigen"},
           {"zstd", HEDDLE_HAVE_ZSTD, "no: heddle tokenize reads no .zst"},
       }) {
    report.line(part, have ? "yes" : without);
  }
}

void report_gpu(Report& report) {
  report.section("GPU");
  const std::string driver = first_line("/proc/driver/nvidia/version");
  report.line("driver", driver.empty() ? "none" : driver);
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) report.line("CUDA_VISIBLE_DEVICES", visible);
  if (!driver.empty() && !HEDDLE_HAVE_CUDA)
    report.warn("an NVIDIA driver is loaded, but this build has no CUDA: install the toolkit and configure again, with the preset cuda");
  try {
    const Runtime& cuda = runtime(DeviceType::cuda);
    for (int i = 0; i < cuda.device_count(); ++i)
      report.line(name_of(Device{DeviceType::cuda, i}), concat(cuda.describe(i), cuda.simulated() ? ", simulated on the CPU" : ""));
    if (const std::string ops = kernels::ops_led_by(DeviceType::cuda, "host"); !ops.empty()) report.line("no CUDA kernel yet", ops);
  } catch (const Error& e) {
    report.line("devices", "none");
    if (HEDDLE_HAVE_CUDA) report.warn(e.what());  // what a build without CUDA lacks is said above
  }
}

void report_launcher(Report& report) {
  report.section("Launcher");
  std::string found;
  bool several = false;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID",
                           "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"}) {
    const char* value = std::getenv(name);
    if (!value) continue;
    report.line(name, value);
    found = name;
    const std::string_view key = name;
    if (key == "OMPI_COMM_WORLD_SIZE" || key == "PMI_SIZE" || key == "SLURM_NTASKS") several |= std::atoi(value) > 1;
  }
  if (found.empty()) report.line("started by", "hand (no mpirun or Slurm variables)");
  if (several && !HEDDLE_HAVE_MPI) report.warn("a launcher started several ranks, but this build has no MPI: each would train alone");
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text = *entry;
    for (const std::string_view prefix : {"HEDDLE_", "OMP_", "NCCL_", "KMP_", "DNNL_", "ONEDNN_"}) {
      const size_t equals = text.find('=');
      if (text.rfind(prefix, 0) == 0 && equals != std::string_view::npos) report.line(text.substr(0, equals), std::string(text.substr(equals + 1)));
    }
  }
}

}  // namespace

int doctor_command(Args args) {
  if (!parse_arguments(kHelp, {}, args)) return 0;
  Report report;
  report_build(report);
  report_processor(report);
  report_memory(report);
  report_gpu(report);
  report_launcher(report);
  report.finish();
  return 0;
}

}  // namespace heddle::app
