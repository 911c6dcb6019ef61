TEST(x) {}
