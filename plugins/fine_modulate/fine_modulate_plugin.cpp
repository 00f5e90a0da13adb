#include "fine_modulate_plugin.h"

#include "fine_modulate.cuh"
#include "fine_modulate.h"

#include <cstring>
#include <exception>
#include <memory>

using namespace nvinfer1;

namespace fine
{
namespace
{

constexpr char const* kName = "FineModulate";
constexpr char const* kVersion = "1";
constexpr char const* kNamespace = "";
constexpr char const* kKernelField = "kernel";
constexpr int32_t kFailure = 1;

// Channels last (kHWC8, kHWC) is what TensorRT's convolutions prefer: no transposing kernel then stands around the
// plugin. kLINEAR is what every network can give.
bool supported(DataType type, TensorFormat format) noexcept
{
    switch (format)
    {
    case TensorFormat::kLINEAR: return type == DataType::kHALF || type == DataType::kFLOAT;
    case TensorFormat::kHWC8: return type == DataType::kHALF;
    case TensorFormat::kHWC: return type == DataType::kFLOAT;
    default: return false;
    }
}

Layout layout_of(TensorFormat format) noexcept
{
    return format == TensorFormat::kHWC8 ? Layout::kNHWC8
        : format == TensorFormat::kHWC   ? Layout::kNHWC
                                         : Layout::kNCHW;
}

bool fits(PluginTensorDesc const* in, PluginTensorDesc const* out, int64_t kernel) noexcept
{
    Dims const& low = in[0].dims;
    Dims const& m = in[1].dims;
    Dims const& result = out[0].dims;
    if (low.nbDims != 4 || m.nbDims != 4 || result.nbDims != 4)
    {
        return false;
    }
    for (int32_t i = 0; i < 4; ++i)
    {
        int64_t const tokens = i < 2 ? low.d[i] : (low.d[i] + kernel - 1) / kernel;
        if (low.d[i] < 0 || low.d[i] > INT32_MAX || m.d[i] != tokens || result.d[i] != low.d[i])
        {
            return false;
        }
    }
    return in[1].type == in[0].type && in[1].format == in[0].format && out[0].type == in[0].type
        && out[0].format == in[0].format;
}

} // namespace

FineModulatePlugin::FineModulatePlugin(int32_t kernel)
    : mKernel{kernel}
    , mIdentity{"kernel=" + std::to_string(kernel)}
    , mField{kKernelField, &mKernel, PluginFieldType::kINT32, 1}
    , mFields{1, &mField}
{
}

// Not the default: the fields point into the object itself.
FineModulatePlugin::FineModulatePlugin(FineModulatePlugin const& other)
    : FineModulatePlugin{other.mKernel}
{
}

IPluginCapability* FineModulatePlugin::getCapabilityInterface(PluginCapabilityType type) noexcept
{
    switch (type)
    {
    case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
    case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
    case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

IPluginV3* FineModulatePlugin::clone() noexcept
{
    try
    {
        return std::make_unique<FineModulatePlugin>(*this).release();
    }
    catch (std::exception const&) // out of memory; no exception may leave a plugin
    {
        return nullptr;
    }
}

AsciiChar const* FineModulatePlugin::getPluginName() const noexcept
{
    return kName;
}

AsciiChar const* FineModulatePlugin::getPluginVersion() const noexcept
{
    return kVersion;
}

AsciiChar const* FineModulatePlugin::getPluginNamespace() const noexcept
{
    return kNamespace;
}

int32_t FineModulatePlugin::getNbOutputs() const noexcept
{
    return 1;
}

int32_t FineModulatePlugin::configurePlugin(
    DynamicPluginTensorDesc const*, int32_t nbInputs, DynamicPluginTensorDesc const*, int32_t nbOutputs) noexcept
{
    return nbInputs == 2 && nbOutputs == 1 ? 0 : kFailure;
}

bool FineModulatePlugin::supportsFormatCombination(
    int32_t pos, DynamicPluginTensorDesc const* inOut, int32_t nbInputs, int32_t nbOutputs) noexcept
{
    if (nbInputs != 2 || nbOutputs != 1)
    {
        return false;
    }
    PluginTensorDesc const& first = inOut[0].desc;
    PluginTensorDesc const& asked = inOut[pos].desc;
    return supported(first.type, first.format) && asked.type == first.type && asked.format == first.format;
}

int32_t FineModulatePlugin::getOutputDataTypes(
    DataType* outputTypes, int32_t nbOutputs, DataType const* inputTypes, int32_t nbInputs) const noexcept
{
    if (nbInputs != 2 || nbOutputs != 1)
    {
        return kFailure;
    }
    outputTypes[0] = inputTypes[0];
    return 0;
}

int32_t FineModulatePlugin::getOutputShapes(DimsExprs const* inputs, int32_t nbInputs, DimsExprs const*, int32_t,
    DimsExprs* outputs, int32_t nbOutputs, IExprBuilder&) noexcept
{
    if (nbInputs != 2 || nbOutputs != 1 || inputs[0].nbDims != 4 || inputs[1].nbDims != 4)
    {
        return kFailure;
    }
    outputs[0] = inputs[0];
    return 0;
}

char const* FineModulatePlugin::getTimingCacheID() noexcept
{
    return mIdentity.c_str();
}

char const* FineModulatePlugin::getMetadataString() noexcept
{
    return mIdentity.c_str();
}

int32_t FineModulatePlugin::onShapeChange(
    PluginTensorDesc const* in, int32_t nbInputs, PluginTensorDesc const* out, int32_t nbOutputs) noexcept
{
    return nbInputs == 2 && nbOutputs == 1 && fits(in, out, mKernel) ? 0 : kFailure;
}

int32_t FineModulatePlugin::enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const* outputDesc,
    void const* const* inputs, void* const* outputs, void*, cudaStream_t stream) noexcept
{
    if (!fits(inputDesc, outputDesc, mKernel))
    {
        return kFailure;
    }
    Dims const& low = inputDesc[0].dims;
    Shape const shape{static_cast<unsigned>(low.d[0]), static_cast<unsigned>(low.d[1]),
        static_cast<unsigned>(low.d[2]), static_cast<unsigned>(low.d[3]), static_cast<unsigned>(mKernel)};
    cudaError_t const status = enqueue_modulation(shape, layout_of(inputDesc[0].format),
        inputDesc[0].type == DataType::kHALF, inputs[0], inputs[1], outputs[0], stream);
    return status == cudaSuccess ? 0 : kFailure;
}

IPluginV3* FineModulatePlugin::attachToContext(IPluginResourceContext*) noexcept
{
    return clone(); // no resource of a context is used
}

PluginFieldCollection const* FineModulatePlugin::getFieldsToSerialize() noexcept
{
    return &mFields;
}

FineModulateCreator::FineModulateCreator()
    : mField{kKernelField, nullptr, PluginFieldType::kINT32, 1}
    , mFields{1, &mField}
{
}

AsciiChar const* FineModulateCreator::getPluginName() const noexcept
{
    return kName;
}

AsciiChar const* FineModulateCreator::getPluginVersion() const noexcept
{
    return kVersion;
}

AsciiChar const* FineModulateCreator::getPluginNamespace() const noexcept
{
    return kNamespace;
}

PluginFieldCollection const* FineModulateCreator::getFieldNames() noexcept
{
    return &mFields;
}

IPluginV3* FineModulateCreator::createPlugin(
    AsciiChar const*, PluginFieldCollection const* fields, TensorRTPhase) noexcept
{
    int32_t kernel = 0;
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i)
    {
        PluginField const& field = fields->fields[i];
        if (std::strcmp(field.name, kKernelField) == 0 && field.type == PluginFieldType::kINT32 && field.length == 1
            && field.data != nullptr)
        {
            std::memcpy(&kernel, field.data, sizeof kernel);
        }
    }
    if (kernel < 1)
    {
        return nullptr;
    }
    try
    {
        return std::make_unique<FineModulatePlugin>(kernel).release();
    }
    catch (std::exception const&) // out of memory; no exception may leave a plugin
    {
        return nullptr;
    }
}

} // namespace fine

#ifdef FINE_MODULATE_DYNAMIC

// Entry points of IPluginRegistry::loadLibrary (trtexec --dynamicPlugins). A library that also registered itself
// when it is loaded would be refused: its creator would exist already.
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder*) {}

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& nbCreators)
{
    static fine::FineModulateCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    nbCreators = 1;
    return creators;
}

#else

namespace
{
using fine::FineModulateCreator; // the macro makes a variable's name of its argument
REGISTER_TENSORRT_PLUGIN(FineModulateCreator);
} // namespace

#endif
