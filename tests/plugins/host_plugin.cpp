// Drives the plugin class as TensorRT does, through the creator, behind C functions for ctypes. No TensorRT takes part.
#include "fine_modulate_plugin.h"

#include <cstring>
#include <memory>

using namespace nvinfer1;

namespace
{
IPluginCreatorV3One* registered = nullptr;

IPluginV3OneBuild* build_of(IPluginV3* plugin)
{
    return static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime* runtime_of(IPluginV3* plugin)
{
    return static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

PluginTensorDesc tensor(int64_t const* dims, int type, int format)
{
    PluginTensorDesc desc{};
    desc.dims.nbDims = 4;
    std::memcpy(desc.dims.d, dims, 4 * sizeof *dims);
    desc.type = static_cast<DataType>(type);
    desc.format = static_cast<TensorFormat>(format);
    return desc;
}
} // namespace

extern "C" bool register_creator_for_test(IPluginCreatorInterface& creator) noexcept
{
    registered = static_cast<IPluginCreatorV3One*>(&creator);
    return true;
}

extern "C" char const* creator_text(int which)
{
    PluginField const& field = registered->getFieldNames()->fields[0];
    return which == 0 ? registered->getPluginName()
        : which == 1  ? registered->getPluginVersion()
        : which == 2  ? registered->getPluginNamespace()
                      : field.name;
}

// A plugin made for the build, or a null pointer; `type` and `length` are those of the field `name`.
extern "C" IPluginV3* make(char const* name, int32_t value, int type, int length)
{
    PluginField const field{name, &value, static_cast<PluginFieldType>(type), length};
    PluginFieldCollection const fields{1, &field};
    return registered->createPlugin("node", &fields, TensorRTPhase::kBUILD);
}

// What an execution context gets: the plugin serialised, made again and attached. The first one is destroyed.
extern "C" IPluginV3* reloaded(IPluginV3* plugin)
{
    std::unique_ptr<IPluginV3> const first{plugin};
    std::unique_ptr<IPluginV3> const copy{first->clone()};
    std::unique_ptr<IPluginV3> const made{registered->createPlugin(
        "node", runtime_of(copy.get())->getFieldsToSerialize(), TensorRTPhase::kRUNTIME)};
    return runtime_of(made.get())->attachToContext(nullptr);
}

extern "C" void destroy(IPluginV3* plugin)
{
    delete plugin;
}

extern "C" char const* metadata(IPluginV3* plugin)
{
    return build_of(plugin)->getMetadataString();
}

// types and formats of F, M and the output; whether the plugin takes tensor `pos`, given those before it.
extern "C" bool takes(IPluginV3* plugin, int pos, int const* types, int const* formats)
{
    DynamicPluginTensorDesc tensors[3]{};
    for (int i = 0; i < 3; ++i)
    {
        tensors[i].desc.type = static_cast<DataType>(types[i]);
        tensors[i].desc.format = static_cast<TensorFormat>(formats[i]);
    }
    return build_of(plugin)->supportsFormatCombination(pos, tensors, 2, 1);
}

// onShapeChange and enqueue; 0 when both succeed.
extern "C" int run(IPluginV3* plugin, int64_t const* low_dims, int64_t const* m_dims, int type, int format,
    void const* low, void const* m, void* out)
{
    PluginTensorDesc const in[2]{tensor(low_dims, type, format), tensor(m_dims, type, format)};
    PluginTensorDesc const result[1]{in[0]};
    void const* const inputs[2]{low, m};
    void* const outputs[1]{out};
    auto* const runtime = runtime_of(plugin);
    int const refused = runtime->onShapeChange(in, 2, result, 1);
    return refused ? refused : runtime->enqueue(in, result, inputs, outputs, nullptr, nullptr);
}
