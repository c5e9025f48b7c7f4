// The kernels' arithmetic on the host: batches come on standard input and their rows go to standard output, so that
// tests/preprocess/kernels.rs can hold the shared lines to the definition. Every frame's bytes lie in an allocation of their
// own, so that AddressSanitizer sees a read beside them.
#include "../../cpp/kernels/preprocess.h"

#include <cstdio>
#include <memory>
#include <vector>

namespace {

bool read(void *to, std::size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

template <class Element> bool run(const std::vector<ocelli::Frame> &frames, const ocelli::Tensor &tensor) {
    const std::size_t length = ocelli::row_length(tensor);
    std::vector<Element> rows(frames.size() * length);
    for (std::size_t index = 0; index < frames.size(); ++index) {
        for (ocelli::u32 x = 0; x < tensor.width; ++x) {
            const ocelli::Column column = ocelli::column(frames[index], x);
            for (ocelli::u32 y = 0; y < tensor.height; ++y) {
                ocelli::render(frames[index], tensor, column, y, rows.data() + index * length);
            }
        }
    }
    return std::fwrite(rows.data(), sizeof(Element), rows.size(), stdout) == rows.size() && std::fflush(stdout) == 0;
}

} // namespace

// A batch: type of the elements (0 to 3), number of frames, the tensor; then each frame with offsets in place of
// addresses, the number of its bytes, and these.
int main() {
    ocelli::u32 head[2];
    while (read(head, sizeof head)) {
        ocelli::Tensor tensor;
        if (!read(&tensor, sizeof tensor)) {
            return 1;
        }
        std::vector<ocelli::Frame> frames(head[1]);
        std::vector<std::unique_ptr<ocelli::u8[]>> bytes;
        for (ocelli::Frame &frame : frames) {
            ocelli::u32 count;
            if (!read(&frame, sizeof frame) || !read(&count, sizeof count)) {
                return 1;
            }
            bytes.push_back(std::make_unique<ocelli::u8[]>(count));
            if (!read(bytes.back().get(), count)) {
                return 1;
            }
            for (ocelli::u64 &plane : frame.plane) {
                plane += reinterpret_cast<ocelli::u64>(bytes.back().get());
            }
        }
        const bool done = head[0] == 0   ? run<float>(frames, tensor)
                          : head[0] == 1 ? run<ocelli::f16>(frames, tensor)
                          : head[0] == 2 ? run<ocelli::u8>(frames, tensor)
                                         : run<ocelli::i8>(frames, tensor);
        if (!done) {
            return 1;
        }
    }
    return 0;
}
