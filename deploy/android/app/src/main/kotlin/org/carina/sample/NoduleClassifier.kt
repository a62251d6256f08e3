package org.carina.sample

import java.io.File
import kotlin.math.exp
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** The nodule network of `carina export --to executorch`, one crop at a time. */
class NoduleClassifier(model: File) : AutoCloseable {
    private val module = Module.load(model.path)

    /**
     * Probability that the crop shows a nodule.
     *
     * @param crop 32 x 48 x 48 values (z, y, x) in [-1, 1], the candidate in the middle.
     */
    fun probability(crop: FloatArray): Double {
        require(crop.size == SHAPE.reduce(Long::times).toInt()) {
            "a crop of ${crop.size} values; expected ${SHAPE.joinToString(" x ")}"
        }
        val logits = module.forward(EValue.from(Tensor.fromBlob(crop, SHAPE)))[0].toTensor().dataAsFloatArray
        return 1.0 / (1.0 + exp((logits[0] - logits[1]).toDouble()))
    }

    override fun close() = module.destroy()

    private companion object {
        val SHAPE = longArrayOf(1, 1, 32, 48, 48)
    }
}
