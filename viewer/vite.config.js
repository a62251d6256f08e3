import { defineConfig } from 'vite'

// Straight into the Python package: `carina serve` sends these files, and a wheel carries them.
export default defineConfig({
  build: {
    outDir: '../src/carina/serve/static',
    emptyOutDir: true,
    chunkSizeWarningLimit: 4000,
    license: { fileName: 'licenses.md' }, // of what is bundled; it travels with it
  },
})
