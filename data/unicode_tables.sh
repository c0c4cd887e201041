#!/bin/sh
# Writes data/unicode_tables.h from the Unicode Character Database. Usage: sh data/unicode_tables.sh [DIRECTORY of UnicodeData.txt and PropList.txt]
# Debian has the files in the package unicode-data. The output is committed: building heddle needs neither the package nor this script.
set -eu
database=${1:-/usr/share/unicode}
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n '1s/^# PropList-\([0-9.]*\)\.txt.*/\1/p' "$database/PropList.txt")

# Reads "first last" pairs (hexadecimal, ascending), prints one C array of merged ranges.
array() {
  awk -v name="$1" '
    function number(text,   value, i) {
      value = 0
      text = tolower(text)
      for (i = 1; i <= length(text); ++i) value = value * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
      return value
    }
    function flush(   item) {
      if (!open) return
      item = sprintf("{0x%X, 0x%X},", first, last)
      if (length(line) + length(item) + 1 > 148) { text = text line "\n"; line = "   " }
      line = line " " item
      ++count
    }
    BEGIN { line = "   " }
    {
      a = number($1); b = number($2)
      if (open && a == last + 1) { last = b; next }
      flush()
      first = a; last = b; open = 1
    }
    END { flush(); printf "inline constexpr CodeRange %s[] = {  // %d ranges\n%s%s\n};\n", name, count, text, line }'
}

# General categories that start with $1; "<..., First>" and "<..., Last>" lines stand for everything between them.
category() {
  awk -F';' -v wanted="$1" '
    $2 ~ /, First>$/ { begin = $1; next }
    $2 ~ /, Last>$/ { if (substr($3, 1, 1) == wanted) print begin, $1; next }
    substr($3, 1, 1) == wanted { print $1, $1 }' "$database/UnicodeData.txt"
}

{
  echo "// Written by data/unicode_tables.sh from Unicode $version; do not edit. Ranges are inclusive and ascending."
  echo "#pragma once"
  echo
  echo '#include "data/unicode.h"'
  echo
  echo "// clang-format off"
  echo "namespace heddle::unicode {"
  echo
  category L | array kLetters
  echo
  category N | array kNumbers
  echo
  sed -n 's/^\([0-9A-F.]*\) *; White_Space .*/\1/p' "$database/PropList.txt" | sed 's/\.\./ /; /^[0-9A-F]*$/s/.*/& &/' | array kWhiteSpace
  echo
  echo "}  // namespace heddle::unicode"
  echo "// clang-format on"
} > "$here/unicode_tables.h"
