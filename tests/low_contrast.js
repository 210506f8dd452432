// Finds visible texts that are hard to read by WCAG AA, each with its contrast.
([enough, enoughIfLarge]) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (element) => element === null ? [255, 255, 255]
    : over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const isSeen = (element) => {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return false;
    for (let e = element; e; e = e.parentElement) {
      const box = e.getBoundingClientRect();
      if (getComputedStyle(e).display !== "contents" && (box.width <= 1 || box.height <= 1))
        return false;
    }
    return true;
  };
  const found = [];
  const judge = (element, text) => {
    if (!text.trim() || !isSeen(element) || element.disabled) return;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const [a, b] = [luminance(over(rgba(style.color), ground)), luminance(ground)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? enoughIfLarge : enough))
      found.push(`${ratio.toFixed(2)}: ${text.trim().slice(0, 60)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) judge(texts.currentNode.parentElement, texts.currentNode.data);
  document.querySelectorAll("input[type=text], textarea, select").forEach((e) => judge(e, e.value));
  return found;
}
