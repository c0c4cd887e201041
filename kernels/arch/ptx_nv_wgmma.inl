// The nvcc half of ptx.h: wgmma and setmaxnreg (sm_90a). Included by ptx_nv.inl. The register lists below are counted out because an asm string must
// be a literal: HEDDLE_WGMMA_D<R> names operands %0..%R-1, HEDDLE_WGMMA_ACC<R> binds them to d[0..R-1], R = N / 2.
#pragma once

namespace heddle::ptx {

HEDDLE_PTX void wgmma_fence(Where) {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
HEDDLE_PTX void wgmma_commit(Where) {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Pending>
HEDDLE_PTX void wgmma_wait(Where) {
  static_assert(Pending >= 0 && Pending <= 7, "wgmma.wait_group takes 0 to 7");
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
template <int Count>
HEDDLE_PTX void setmaxnreg_inc(Where) {
  static_assert(Count % 8 == 0 && Count >= 24 && Count <= 256, "setmaxnreg takes a multiple of 8 from 24 to 256");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
HEDDLE_PTX void setmaxnreg_dec(Where) {
  static_assert(Count % 8 == 0 && Count >= 24 && Count <= 256, "setmaxnreg takes a multiple of 8 from 24 to 256");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

// clang-format off
#define HEDDLE_WGMMA_D4 "%0,%1,%2,%3"
#define HEDDLE_WGMMA_D8 HEDDLE_WGMMA_D4 ",%4,%5,%6,%7"
#define HEDDLE_WGMMA_D12 HEDDLE_WGMMA_D8 ",%8,%9,%10,%11"
#define HEDDLE_WGMMA_D16 HEDDLE_WGMMA_D12 ",%12,%13,%14,%15"
#define HEDDLE_WGMMA_D20 HEDDLE_WGMMA_D16 ",%16,%17,%18,%19"
#define HEDDLE_WGMMA_D24 HEDDLE_WGMMA_D20 ",%20,%21,%22,%23"
#define HEDDLE_WGMMA_D28 HEDDLE_WGMMA_D24 ",%24,%25,%26,%27"
#define HEDDLE_WGMMA_D32 HEDDLE_WGMMA_D28 ",%28,%29,%30,%31"
#define HEDDLE_WGMMA_D36 HEDDLE_WGMMA_D32 ",%32,%33,%34,%35"
#define HEDDLE_WGMMA_D40 HEDDLE_WGMMA_D36 ",%36,%37,%38,%39"
#define HEDDLE_WGMMA_D44 HEDDLE_WGMMA_D40 ",%40,%41,%42,%43"
#define HEDDLE_WGMMA_D48 HEDDLE_WGMMA_D44 ",%44,%45,%46,%47"
#define HEDDLE_WGMMA_D52 HEDDLE_WGMMA_D48 ",%48,%49,%50,%51"
#define HEDDLE_WGMMA_D56 HEDDLE_WGMMA_D52 ",%52,%53,%54,%55"
#define HEDDLE_WGMMA_D60 HEDDLE_WGMMA_D56 ",%56,%57,%58,%59"
#define HEDDLE_WGMMA_D64 HEDDLE_WGMMA_D60 ",%60,%61,%62,%63"
#define HEDDLE_WGMMA_D68 HEDDLE_WGMMA_D64 ",%64,%65,%66,%67"
#define HEDDLE_WGMMA_D72 HEDDLE_WGMMA_D68 ",%68,%69,%70,%71"
#define HEDDLE_WGMMA_D76 HEDDLE_WGMMA_D72 ",%72,%73,%74,%75"
#define HEDDLE_WGMMA_D80 HEDDLE_WGMMA_D76 ",%76,%77,%78,%79"
#define HEDDLE_WGMMA_D84 HEDDLE_WGMMA_D80 ",%80,%81,%82,%83"
#define HEDDLE_WGMMA_D88 HEDDLE_WGMMA_D84 ",%84,%85,%86,%87"
#define HEDDLE_WGMMA_D92 HEDDLE_WGMMA_D88 ",%88,%89,%90,%91"
#define HEDDLE_WGMMA_D96 HEDDLE_WGMMA_D92 ",%92,%93,%94,%95"
#define HEDDLE_WGMMA_D100 HEDDLE_WGMMA_D96 ",%96,%97,%98,%99"
#define HEDDLE_WGMMA_D104 HEDDLE_WGMMA_D100 ",%100,%101,%102,%103"
#define HEDDLE_WGMMA_D108 HEDDLE_WGMMA_D104 ",%104,%105,%106,%107"
#define HEDDLE_WGMMA_D112 HEDDLE_WGMMA_D108 ",%108,%109,%110,%111"
#define HEDDLE_WGMMA_D116 HEDDLE_WGMMA_D112 ",%112,%113,%114,%115"
#define HEDDLE_WGMMA_D120 HEDDLE_WGMMA_D116 ",%116,%117,%118,%119"
#define HEDDLE_WGMMA_D124 HEDDLE_WGMMA_D120 ",%120,%121,%122,%123"
#define HEDDLE_WGMMA_D128 HEDDLE_WGMMA_D124 ",%124,%125,%126,%127"

#define HEDDLE_WGMMA_ACC4 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define HEDDLE_WGMMA_ACC8 HEDDLE_WGMMA_ACC4, "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define HEDDLE_WGMMA_ACC12 HEDDLE_WGMMA_ACC8, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define HEDDLE_WGMMA_ACC16 HEDDLE_WGMMA_ACC12, "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define HEDDLE_WGMMA_ACC20 HEDDLE_WGMMA_ACC16, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19])
#define HEDDLE_WGMMA_ACC24 HEDDLE_WGMMA_ACC20, "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define HEDDLE_WGMMA_ACC28 HEDDLE_WGMMA_ACC24, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
#define HEDDLE_WGMMA_ACC32 HEDDLE_WGMMA_ACC28, "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define HEDDLE_WGMMA_ACC36 HEDDLE_WGMMA_ACC32, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define HEDDLE_WGMMA_ACC40 HEDDLE_WGMMA_ACC36, "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define HEDDLE_WGMMA_ACC44 HEDDLE_WGMMA_ACC40, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43])
#define HEDDLE_WGMMA_ACC48 HEDDLE_WGMMA_ACC44, "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define HEDDLE_WGMMA_ACC52 HEDDLE_WGMMA_ACC48, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
#define HEDDLE_WGMMA_ACC56 HEDDLE_WGMMA_ACC52, "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define HEDDLE_WGMMA_ACC60 HEDDLE_WGMMA_ACC56, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define HEDDLE_WGMMA_ACC64 HEDDLE_WGMMA_ACC60, "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define HEDDLE_WGMMA_ACC68 HEDDLE_WGMMA_ACC64, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define HEDDLE_WGMMA_ACC72 HEDDLE_WGMMA_ACC68, "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define HEDDLE_WGMMA_ACC76 HEDDLE_WGMMA_ACC72, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75])
#define HEDDLE_WGMMA_ACC80 HEDDLE_WGMMA_ACC76, "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])
#define HEDDLE_WGMMA_ACC84 HEDDLE_WGMMA_ACC80, "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83])
#define HEDDLE_WGMMA_ACC88 HEDDLE_WGMMA_ACC84, "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87])
#define HEDDLE_WGMMA_ACC92 HEDDLE_WGMMA_ACC88, "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91])
#define HEDDLE_WGMMA_ACC96 HEDDLE_WGMMA_ACC92, "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define HEDDLE_WGMMA_ACC100 HEDDLE_WGMMA_ACC96, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99])
#define HEDDLE_WGMMA_ACC104 HEDDLE_WGMMA_ACC100, "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103])
#define HEDDLE_WGMMA_ACC108 HEDDLE_WGMMA_ACC104, "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107])
#define HEDDLE_WGMMA_ACC112 HEDDLE_WGMMA_ACC108, "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111])
#define HEDDLE_WGMMA_ACC116 HEDDLE_WGMMA_ACC112, "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115])
#define HEDDLE_WGMMA_ACC120 HEDDLE_WGMMA_ACC116, "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119])
#define HEDDLE_WGMMA_ACC124 HEDDLE_WGMMA_ACC120, "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123])
#define HEDDLE_WGMMA_ACC128 HEDDLE_WGMMA_ACC124, "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

// Each row: X(N, R, then R, R+1, ... as operand numbers).
#define HEDDLE_WGMMA_SIZES(X) \
  X(8, 4, 5, 6, 7, 8, 9, 10, 11) \
  X(16, 8, 9, 10, 11, 12, 13, 14, 15) \
  X(24, 12, 13, 14, 15, 16, 17, 18, 19) \
  X(32, 16, 17, 18, 19, 20, 21, 22, 23) \
  X(40, 20, 21, 22, 23, 24, 25, 26, 27) \
  X(48, 24, 25, 26, 27, 28, 29, 30, 31) \
  X(56, 28, 29, 30, 31, 32, 33, 34, 35) \
  X(64, 32, 33, 34, 35, 36, 37, 38, 39) \
  X(72, 36, 37, 38, 39, 40, 41, 42, 43) \
  X(80, 40, 41, 42, 43, 44, 45, 46, 47) \
  X(88, 44, 45, 46, 47, 48, 49, 50, 51) \
  X(96, 48, 49, 50, 51, 52, 53, 54, 55) \
  X(104, 52, 53, 54, 55, 56, 57, 58, 59) \
  X(112, 56, 57, 58, 59, 60, 61, 62, 63) \
  X(120, 60, 61, 62, 63, 64, 65, 66, 67) \
  X(128, 64, 65, 66, 67, 68, 69, 70, 71) \
  X(136, 68, 69, 70, 71, 72, 73, 74, 75) \
  X(144, 72, 73, 74, 75, 76, 77, 78, 79) \
  X(152, 76, 77, 78, 79, 80, 81, 82, 83) \
  X(160, 80, 81, 82, 83, 84, 85, 86, 87) \
  X(168, 84, 85, 86, 87, 88, 89, 90, 91) \
  X(176, 88, 89, 90, 91, 92, 93, 94, 95) \
  X(184, 92, 93, 94, 95, 96, 97, 98, 99) \
  X(192, 96, 97, 98, 99, 100, 101, 102, 103) \
  X(200, 100, 101, 102, 103, 104, 105, 106, 107) \
  X(208, 104, 105, 106, 107, 108, 109, 110, 111) \
  X(216, 108, 109, 110, 111, 112, 113, 114, 115) \
  X(224, 112, 113, 114, 115, 116, 117, 118, 119) \
  X(232, 116, 117, 118, 119, 120, 121, 122, 123) \
  X(240, 120, 121, 122, 123, 124, 125, 126, 127) \
  X(248, 124, 125, 126, 127, 128, 129, 130, 131) \
  X(256, 128, 129, 130, 131, 132, 133, 134, 135)
// clang-format on

// p0: descriptor of A, p1: of B, p2: accumulate, p3, p4: the majors of A and B.
#define HEDDLE_WGMMA_SS(size, p0, p1, p2, p3, p4, ...)                                                                                             \
  if constexpr (N == size) {                                                                                                                       \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #size "k16.f32.bf16.bf16 {" HEDDLE_WGMMA_D##p0 \
                 "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p3 ", %" #p4 ";\n}"                                                                          \
                 : HEDDLE_WGMMA_ACC##p0                                                                                                            \
                 : "l"(a), "l"(b), "r"(int32_t{accumulate}), "n"(static_cast<int>(MajorA)), "n"(static_cast<int>(MajorB)));                        \
  }
template <int N, Major MajorA, Major MajorB>
HEDDLE_PTX void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, Where) {
  static_assert(N % 8 == 0 && N >= 8 && N <= 256, "wgmma takes N as a multiple of 8 up to 256");
  HEDDLE_WGMMA_SIZES(HEDDLE_WGMMA_SS)
}

// p0-p3: registers of A, p4: descriptor of B, p5: accumulate, p6: the major of B.
#define HEDDLE_WGMMA_RS(size, p0, p1, p2, p3, p4, p5, p6, ...)                                                                                     \
  if constexpr (N == size) {                                                                                                                       \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #size "k16.f32.bf16.bf16 {" HEDDLE_WGMMA_D##p0 \
                 "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, %" #p6 ";\n}"                                                    \
                 : HEDDLE_WGMMA_ACC##p0                                                                                                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int32_t{accumulate}), "n"(static_cast<int>(MajorB)));                   \
  }
template <int N, Major MajorB>
HEDDLE_PTX void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, Where) {
  static_assert(N % 8 == 0 && N >= 8 && N <= 256, "wgmma takes N as a multiple of 8 up to 256");
  HEDDLE_WGMMA_SIZES(HEDDLE_WGMMA_RS)
}

#undef HEDDLE_WGMMA_SS
#undef HEDDLE_WGMMA_RS
#undef HEDDLE_WGMMA_SIZES

}  // namespace heddle::ptx
