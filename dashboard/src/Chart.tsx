import {
  ArcElement, BarController, BarElement, CategoryScale, Chart as ChartJs, type ChartConfiguration, DoughnutController,
  Legend, LinearScale, Tooltip,
} from "chart.js";
import { useEffect, useRef, useState } from "preact/hooks";

ChartJs.register(ArcElement, BarController, BarElement, CategoryScale, DoughnutController, Legend, LinearScale, Tooltip);

/** The page's colours by the names that style.css gives them, so that charts follow light and dark. */
export type Palette = (name: string) => string;

type Props = { label: string; height: number; configure: (colour: Palette) => ChartConfiguration<"bar" | "doughnut"> };

const darkMode = matchMedia("(prefers-color-scheme: dark)");

export function Chart({ label, height, configure }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [isDark, setIsDark] = useState(darkMode.matches);

  useEffect(() => {
    const follow = () => setIsDark(darkMode.matches);
    darkMode.addEventListener("change", follow);
    return () => darkMode.removeEventListener("change", follow);
  }, []);

  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const colour: Palette = (name) => style.getPropertyValue(`--${name}`).trim();
    ChartJs.defaults.font.family = style.fontFamily;
    ChartJs.defaults.color = colour("muted");
    ChartJs.defaults.borderColor = colour("line");
    const configuration = configure(colour);
    const chart = new ChartJs(canvas.current!, {
      ...configuration,
      options: { responsive: true, maintainAspectRatio: false, animation: false, ...configuration.options },
    });
    return () => chart.destroy();
  }, [configure, isDark]);

  return (
    <div class="chart" ref={(box) => void (box && (box.style.height = `${height}px`))}>
      <canvas ref={canvas} role="img" aria-label={label} />
    </div>
  );
}
