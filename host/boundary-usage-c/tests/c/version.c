// Compares the version of the library with the version of the package at compile time.

#include "checks.h"

int main(void) {
    CHECK(strcmp(boundary_usage_version(), VERSION) == 0);
    return 0;
}
