plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "org.carina.sample"
    compileSdk = 35
    defaultConfig {
        applicationId = "org.carina.sample"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
    }
    // ExecuTorch maps the model from its file; a packed asset could not be mapped.
    androidResources { noCompress += listOf("pte", "f32") }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    implementation("org.pytorch:executorch-android:${property("executorchVersion")}")
}
