/* The functions that TensorRT's Python bindings ask of its libraries, for wheels of bindings whose libraries are elsewhere. All
 * return nothing, so that no runtime, builder or parser comes of it; the bindings' own names, signatures, enums and classes are
 * real all the same.
 */
#include <stddef.h>

#define NOTHING(name)                                                                                                          \
    void *name(void) { return NULL; }

NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getPluginRegistry)
NOTHING(initLibNvInferPlugins)
NOTHING(getNvOnnxParserVersion)
NOTHING(_ZN11nvuffparser15createUffParserEv)
NOTHING(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
NOTHING(_ZN14nvcaffeparser117createCaffeParserEv)
NOTHING(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
