package org.carina.sample

import android.app.Activity
import android.os.Bundle
import android.widget.TextView
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.concurrent.thread

/** Shows the probability of one stored crop and how long it took. For research use only. */
class MainActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val view = TextView(this).apply { textSize = 20f }
        setContentView(view)
        thread {
            val text = runCatching(::classify).getOrElse { "cannot classify: ${it.message}" }
            runOnUiThread { view.text = text }
        }
    }

    private fun classify(): String {
        val bytes = assets.open("crop.f32").use { it.readBytes() }
        val crop = FloatArray(bytes.size / Float.SIZE_BYTES)
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(crop)
        return NoduleClassifier(unpacked("nodule.pte")).use { network ->
            val begin = System.nanoTime()
            val p = network.probability(crop)
            val milliseconds = (System.nanoTime() - begin) / 1e6
            "p_nodule %.4f\n%.0f ms\nFor research use only. Not for diagnosis.".format(p, milliseconds)
        }
    }

    /** The asset as a file, which ExecuTorch can map. */
    private fun unpacked(name: String): File {
        val file = File(filesDir, name)
        assets.open(name).use { from -> file.outputStream().use(from::copyTo) }
        return file
    }
}
